//! Links: BTP over WebSocket, ILP over HTTP, TLS, SPSP client.
