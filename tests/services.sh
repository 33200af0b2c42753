#!/bin/sh
# Get the servers that some tests start for themselves: root on a Debian machine has them from its packages.
# Where one cannot be had, its tests are skipped and say so; this never fails.
set -u
cd "$(dirname "$0")/.."

absent() { ! command -v "$1" >/dev/null; }
apt_get() { DEBIAN_FRONTEND=noninteractive apt-get "$@" >/dev/null 2>&1; }
get() { apt_get install -y --no-install-recommends "$@"; }

# Debian 12 has Valkey in its backports alone. They are read from the mirror that the machine uses, and their lists are
# kept aside and thrown away: what the machine takes its packages from stays as it is.
get_from_backports() {
  package=$1
  aside=$(mktemp -d)
  mkdir "$aside/sources" "$aside/lists"
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  # Of the stanzas, the first that is not of security updates; those have no backports.
  awk -v suites="Suites: $release $release-backports" '
    BEGIN { RS = ""; FS = "\n" }
    !/-security/ { sub(/Suites:[^\n]*/, suites); print; exit }
  ' /etc/apt/sources.list.d/debian.sources 2>/dev/null >"$aside/sources/backports.sources"
  set -- -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$aside/sources" -o Dir::State::Lists="$aside/lists" \
    -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache=
  apt_get "$@" update && get "$@" "$package"
  rm -rf "$aside"
}

if [ "$(id -u)" = 0 ] && ! absent apt-get && { absent redis-server || absent valkey-server; }; then
  apt_get update
  absent redis-server && get redis-server openssl
  absent valkey-server && ! get valkey-server && get_from_backports valkey-server
fi
# Where no registry answers, npm would go on asking for many minutes.
bounded=$(command -v timeout >/dev/null && echo 'timeout 60')
editors=.venv-editors
[ -x $editors/node_modules/.bin/yaml-language-server ] || absent npm ||
  $bounded npm install --silent --no-audit --no-fund --prefix $editors yaml-language-server@1.25.0 >/dev/null 2>&1

absent redis-server && echo "redis-server is not installed: the tests that start one are skipped"
absent valkey-server && echo "valkey-server is not installed: the store's tests on it are skipped"
[ -x $editors/node_modules/.bin/yaml-language-server ] ||
  echo "yaml-language-server is not installed: the tests of what editors say are skipped"
exit 0
