//! A request body, within limits (RFC 9112 sections 6 and 7).
