"""The messages that gRPC and the plain Unix socket share, and the services of gRPC, made from a `.proto`."""
