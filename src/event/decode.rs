//! The WHATWG parsing algorithm.
