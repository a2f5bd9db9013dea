//! The pure core: what happens to a packet.
