//! The comparison of secrets.

use std::hint::black_box;

/// Compares two secrets in a time that depends on their lengths only.
///
/// An ordinary comparison stops at the first difference; an attacker who measures the time guesses a token byte by byte. The
/// length is not hidden, so give all tokens the same length.
///
/// ```
/// use tiny_sse::{Request, constant_time_eq};
///
/// fn is_admin(request: &Request, token: &str) -> bool {
///     request.bearer().is_some_and(|bearer| constant_time_eq(bearer, token))
/// }
/// # assert!(constant_time_eq("a", "a"));
/// ```
#[must_use]
pub fn constant_time_eq(a: impl AsRef<str>, b: impl AsRef<str>) -> bool {
    let (a, b) = (a.as_ref().as_bytes(), b.as_ref().as_bytes());
    let mut difference = 0;
    for (a, b) in a.iter().zip(b) {
        // Hides the value from the optimiser, which could end the loop when the result is known.
        difference = black_box(difference | (a ^ b));
    }
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_is_the_same_bytes() {
        #[track_caller]
        fn check(a: &str, b: &str, expected: bool) {
            assert_eq!(constant_time_eq(a, b), expected);
        }
        check("", "", true);
        check("secret", "secret", true);
        check("secret", "Secret", false); // At the front.
        check("secret", "secreT", false); // At the end.
        check("secret", "secre", false); // A part of it.
        check("secret", "", false); // Nothing at all.
        check("\u{80}", "\0\0", false); // Differences do not cancel out.
    }
}
