from cpex.framework.external.proto.plugin_service_pb2 import *  # noqa: F403 - a second address of the generated names
