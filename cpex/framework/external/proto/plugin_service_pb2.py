"""Made from `plugin_service.proto`; run `python tests/proto_stubs.py` instead of editing it."""

from google.protobuf import descriptor_pool, struct_pb2  # noqa: F401 - the descriptor below refers to its messages
from google.protobuf.internal import builder

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(
    b'\n\x14plugin_service.proto\x12\x04cpex\x1a\x1cgoogle/protobuf/struct.proto",\n\x16Ge'
    b'tPluginConfigRequest\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"`\n\x17GetPluginConfigRespo'
    b'nse\x12\x14\n\x05found\x18\x01 \x01(\x08R\x05found\x12/\n\x06config\x18\x02 \x01(\x0b2\x17.google.protobuf.Stru'
    b'ctR\x06config"\x19\n\x17GetPluginConfigsRequest"M\n\x18GetPluginConfigsRespons'
    b'e\x121\n\x07configs\x18\x01 \x03(\x0b2\x17.google.protobuf.StructR\x07configs"\x88\x02\n\x11InvokeH'
    b'ookRequest\x12\x1b\n\thook_type\x18\x01 \x01(\tR\x08hookType\x12\x1f\n\x0bplugin_name\x18\x02 \x01(\tR\npl'
    b'uginName\x121\n\x07payload\x18\x03 \x01(\x0b2\x17.google.protobuf.StructR\x07payload\x12-\n\x07c'
    b'ontext\x18\x04 \x01(\x0b2\x13.cpex.PluginContextR\x07context\x12\x14\n\x05frame\x18\x10 \x01(\x0cR\x05frame'
    b'\x12%\n\x0ecorrelation_id\x18\x11 \x01(\x04R\rcorrelationId\x12\x16\n\x06cancel\x18\x12 \x01(\x08R\x06cancel"'
    b'\xb4\x02\n\x12InvokeHookResponse\x12\x1f\n\x0bplugin_name\x18\x01 \x01(\tR\npluginName\x12/\n\x06resul'
    b't\x18\x02 \x01(\x0b2\x17.google.protobuf.StructR\x06result\x12-\n\x07context\x18\x03 \x01(\x0b2\x13.cpex'
    b".PluginContextR\x07context\x12'\n\x05error\x18\x04 \x01(\x0b2\x11.cpex.PluginErrorR\x05error"
    b'\x127\n\x0bresult_base\x18\x05 \x01(\x0b2\x16.cpex.PluginResultBaseR\nresultBase\x12\x14\n\x05fra'
    b'me\x18\x10 \x01(\x0cR\x05frame\x12%\n\x0ecorrelation_id\x18\x11 \x01(\x04R\rcorrelationId"\xb9\x02\n\rGloba'
    b'lContext\x12\x1d\n\nrequest_id\x18\x01 \x01(\tR\trequestId\x12\x1b\n\tserver_id\x18\x02 \x01(\tR\x08serv'
    b'erId\x12\x1b\n\ttenant_id\x18\x03 \x01(\tR\x08tenantId\x12!\n\x0buser_string\x18\x04 \x01(\tH\x00R\nuserSt'
    b'ring\x12:\n\x0buser_struct\x18\x05 \x01(\x0b2\x17.google.protobuf.StructH\x00R\nuserStruct'
    b'\x123\n\x08metadata\x18\x06 \x01(\x0b2\x17.google.protobuf.StructR\x08metadata\x12-\n\x05state\x18\x07'
    b' \x01(\x0b2\x17.google.protobuf.StructR\x05stateB\x0c\n\nuser_value"\xaf\x01\n\rPluginCon'
    b'text\x12:\n\x0eglobal_context\x18\x01 \x01(\x0b2\x13.cpex.GlobalContextR\rglobalContext'
    b'\x12-\n\x05state\x18\x02 \x01(\x0b2\x17.google.protobuf.StructR\x05state\x123\n\x08metadata\x18\x03 \x01('
    b'\x0b2\x17.google.protobuf.StructR\x08metadata"\xd9\x01\n\x0fPluginViolation\x12\x16\n\x06reas'
    b'on\x18\x01 \x01(\tR\x06reason\x12 \n\x0bdescription\x18\x02 \x01(\tR\x0bdescription\x12\x12\n\x04code\x18\x03 \x01(\t'
    b'R\x04code\x12\x1f\n\x0bplugin_name\x18\x04 \x01(\tR\npluginName\x121\n\x07details\x18\x05 \x01(\x0b2\x17.googl'
    b'e.protobuf.StructR\x07details\x12$\n\x0emcp_error_code\x18\x06 \x01(\x05R\x0cmcpErrorCode'
    b'"\xec\x01\n\x10PluginResultBase\x12/\n\x13continue_processing\x18\x01 \x01(\x08R\x12continueProc'
    b'essing\x123\n\tviolation\x18\x02 \x01(\x0b2\x15.cpex.PluginViolationR\tviolation\x123\n\x08m'
    b'etadata\x18\x03 \x01(\x0b2\x17.google.protobuf.StructR\x08metadata\x12=\n\x0fdenial_metad'
    b'ata\x18\x04 \x01(\x0b2\x14.cpex.DenialMetadataR\x0edenialMetadata"m\n\x0cDenialMetric\x12'
    b'\x1a\n\x07boolean\x18\x01 \x01(\x08H\x00R\x07boolean\x12\x1a\n\x07integer\x18\x02 \x01(\x12H\x00R\x07integer\x12\x1c\n\x08float'
    b'ing\x18\x03 \x01(\x01H\x00R\x08floatingB\x07\n\x05value"\x99\x01\n\x0eDenialMetadata\x128\n\x06fields\x18\x01 \x03('
    b'\x0b2 .cpex.DenialMetadata.FieldsEntryR\x06fields\x1aM\n\x0bFieldsEntry\x12\x10\n\x03ke'
    b'y\x18\x01 \x01(\tR\x03key\x12(\n\x05value\x18\x02 \x01(\x0b2\x12.cpex.DenialMetricR\x05value:\x028\x01"\xb5\x01\n\x0bP'
    b'luginError\x12\x18\n\x07message\x18\x01 \x01(\tR\x07message\x12\x1f\n\x0bplugin_name\x18\x02 \x01(\tR\nplugi'
    b'nName\x12\x12\n\x04code\x18\x03 \x01(\tR\x04code\x121\n\x07details\x18\x04 \x01(\x0b2\x17.google.protobuf.Str'
    b'uctR\x07details\x12$\n\x0emcp_error_code\x18\x05 \x01(\x05R\x0cmcpErrorCode".\n\x12HealthChec'
    b'kRequest\x12\x18\n\x07service\x18\x01 \x01(\tR\x07service"\xa7\x01\n\x13HealthCheckResponse\x12?\n\x06st'
    b'atus\x18\x01 \x01(\x0e2\'.cpex.HealthCheckResponse.ServingStatusR\x06status"O\n\rS'
    b'ervingStatus\x12\x0b\n\x07UNKNOWN\x10\x00\x12\x0b\n\x07SERVING\x10\x01\x12\x0f\n\x0bNOT_SERVING\x10\x02\x12\x13\n\x0fSERVI'
    b'CE_UNKNOWN\x10\x032\xf3\x01\n\rPluginService\x12N\n\x0fGetPluginConfig\x12\x1c.cpex.GetPlug'
    b'inConfigRequest\x1a\x1d.cpex.GetPluginConfigResponse\x12Q\n\x10GetPluginConfi'
    b'gs\x12\x1d.cpex.GetPluginConfigsRequest\x1a\x1e.cpex.GetPluginConfigsRespons'
    b'e\x12?\n\nInvokeHook\x12\x17.cpex.InvokeHookRequest\x1a\x18.cpex.InvokeHookRespon'
    b'se2F\n\x06Health\x12<\n\x05Check\x12\x18.cpex.HealthCheckRequest\x1a\x19.cpex.HealthChe'
    b'ckResponseb\x06proto3'
)
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "plugin_service_pb2", globals())
