//! One event and its bytes.
