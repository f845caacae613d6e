//! How to use this crate, by topic. The programs on these pages are compiled and run as tests.

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("testing.md")]
pub mod testing {}
