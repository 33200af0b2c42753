"""The store's operations as Lua, for servers that run them atomically.

Each does to one key what the rule of the same name in `entries` does to an entry. Times are microseconds, which a Lua
number holds exactly until the year 2255; -1 stands for none. Each key is also given a time to live by the server's
clock, with a margin for clocks that differ, so that nothing is left behind.
"""

from __future__ import annotations

__all__ = ["ADD", "COMPARE_AND_SET", "DROP", "GET", "MEMBERS", "PUT", "SUBTRACT", "TAKE", "TAKE_SLOT"]

_MARGIN_MS = 60_000

_KEEP = f"""
local function whole(number) return string.format('%.0f', number) end
local function keep_for(us)
  if us < 0 then redis.call('PERSIST', KEYS[1])
  else redis.call('PEXPIRE', KEYS[1], whole(math.ceil(us / 1000) + {_MARGIN_MS})) end
end
"""

ADD = (
    _KEEP
    + """
local amount, limit, now, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local found = redis.call('HMGET', KEYS[1], 'value', 'generation', 'ends')
local value, generation, ends = tonumber(found[1] or 0), found[2] or '', tonumber(found[3] or -1)
if ends >= 0 and ends <= now then value, generation, ends = 0, '', -1 end
if limit >= 0 and value + amount > limit then return {0, value, generation, ends} end
value = value + amount
if generation == '' then
  generation = ARGV[5]
  if ttl >= 0 then ends = now + ttl end
end
redis.call('HSET', KEYS[1], 'value', whole(value), 'generation', generation, 'ends', whole(ends))
keep_for(ends < 0 and -1 or ends - now)
return {1, value, generation, ends}
"""
)

SUBTRACT = """
local found = redis.call('HMGET', KEYS[1], 'value', 'generation', 'ends')
local ends = tonumber(found[3] or -1)
if found[2] ~= ARGV[2] or (ends >= 0 and ends <= tonumber(ARGV[3])) then return 0 end
local left = math.max(0, tonumber(found[1]) - tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], 'value', string.format('%.0f', left))
return 1
"""

TAKE = (
    _KEEP
    + """
local cost, capacity, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local over = full + cost - now - capacity
if over > 0 then return {full - now, over} end
full = full + cost
redis.call('SET', KEYS[1], whole(full))
keep_for(full - now)
return {full - now, over}
"""
)

TAKE_SLOT = (
    _KEEP
    + """
local limit, window, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now - window))
local used = redis.call('ZCARD', KEYS[1])
if used >= limit then
  local wait = -1
  if limit > 0 then
    wait = tonumber(redis.call('ZRANGE', KEYS[1], used - limit, used - limit, 'WITHSCORES')[2]) + window - now
  end
  local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
  return {0, 0, wait, newest and tonumber(newest) + window - now or 0}
end
redis.call('ZADD', KEYS[1], whole(now), ARGV[4])
local full = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]) + window - now
keep_for(full)
return {1, limit - used - 1, 0, full}
"""
)

_KEEP_SET = (
    _KEEP
    + """
local function keep_set(now)
  local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
  if last == 'inf' then keep_for(-1) elseif last then keep_for(tonumber(last) - now) end
end
"""
)

PUT = (
    _KEEP_SET
    + """
local ttl, now = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now))
local ends = 'inf'
if ttl >= 0 then ends = whole(now + ttl) end
local new = redis.call('ZADD', KEYS[1], ends, ARGV[1])
keep_set(now)
return new
"""
)

DROP = (
    _KEEP_SET
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
local gone = redis.call('ZREM', KEYS[1], ARGV[1])
keep_set(tonumber(ARGV[2]))
return gone
"""
)

MEMBERS = "return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf')"

_CURRENT = """
local function current(now)
  local found = redis.call('HMGET', KEYS[1], 'text', 'ends')
  local ends = tonumber(found[2] or -1)
  if ends >= 0 and ends <= now then return false end
  return found[1]
end
"""

GET = _CURRENT + "return current(tonumber(ARGV[1]))"

COMPARE_AND_SET = (
    _KEEP
    + _CURRENT
    + """
local ttl, now = tonumber(ARGV[5]), tonumber(ARGV[6])
local text = current(now)
if ARGV[1] == '1' then
  if text ~= ARGV[2] then return 0 end
elseif text then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
else
  local ends = -1
  if ttl >= 0 then ends = now + ttl end
  redis.call('HSET', KEYS[1], 'text', ARGV[4], 'ends', whole(ends))
  keep_for(ttl)
end
return 1
"""
)
