//! BuildKit in the daemon.
