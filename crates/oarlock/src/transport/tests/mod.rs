//! Tests of the transport: the protocol in a world of its own time ([`world`]), then the real sockets.

mod attacks;
mod chaos;
mod protocol;
mod sockets;
mod world;
