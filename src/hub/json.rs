//! JSON strings, which a gap and a long-poll response need.

pub(super) use crate::event::json_string as string;
