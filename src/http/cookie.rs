//! A cookie that a response sets (RFC 6265 section 4.1).

use std::time::Duration;

use super::head::is_token;

/// A cookie for [`Response::with_cookie`](crate::Response::with_cookie).
///
/// The defaults are safe: scripts cannot read the cookie (`HttpOnly`), and requests from pages of other sites do not bring it,
/// except for links that the visitor follows (`SameSite=Lax`). The cookie is for every path of this host, until the browser
/// is closed. A cookie that scripts may read is a `Set-Cookie` field, added with
/// [`add_header`](crate::Response::add_header).
///
/// ```
/// use std::time::Duration;
/// use tiny_sse::{Cookie, Response};
///
/// let session = Cookie::new("session", "b8f1").secure().max_age(Duration::from_secs(3600));
/// let response = Response::new(204).with_cookie(session);
/// let line = "session=b8f1; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600";
/// assert_eq!(response.header("set-cookie"), Some(line));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a cookie does nothing until a response has it"]
pub struct Cookie {
    name: String,
    value: String,
    same_site: SameSite,
    /// The attributes that were added.
    attributes: String,
}

/// Which requests from pages of other sites bring a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// No request.
    Strict,
    /// A link that the visitor follows.
    Lax,
    /// Every request. Browsers accept the cookie only with [`secure`](Cookie::secure).
    None,
}

impl Cookie {
    /// Makes a cookie of this name and value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Cookie {
        Cookie {
            name: name.into(),
            value: value.into(),
            same_site: SameSite::Lax,
            attributes: String::new(),
        }
    }

    /// Adds `Secure`: the cookie is sent over TLS only. Browsers make an exception for localhost.
    pub fn secure(mut self) -> Cookie {
        self.attributes += "; Secure";
        self
    }

    /// Sets which requests from pages of other sites bring the cookie.
    pub fn same_site(mut self, same_site: SameSite) -> Cookie {
        self.same_site = same_site;
        self
    }

    /// Sets how long the browser keeps the cookie; zero deletes it.
    pub fn max_age(mut self, time: Duration) -> Cookie {
        self.attributes += &format!("; Max-Age={}", time.as_secs());
        self
    }

    /// Writes the value of the field: `set-cookie-string = cookie-pair *( ";" SP cookie-av )`.
    pub(super) fn to_field(&self) -> Result<String, String> {
        let (name, value) = (&self.name, &self.value);
        // `cookie-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E`
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        if !is_token(name.as_bytes()) || !value.bytes().all(is_octet) {
            // The value may be a secret, which does not belong in a log.
            return Err(format!(
                "cookie {name:?}: its name or value holds what RFC 6265 does not allow"
            ));
        }
        let (same_site, rest) = (self.same_site, &self.attributes);
        Ok(format!(
            "{name}={value}; Path=/; HttpOnly; SameSite={same_site:?}{rest}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_its_attributes() {
        let new = || Cookie::new("a", "b");
        let field = |cookie: Cookie| cookie.to_field().unwrap();
        assert_eq!(field(new()), "a=b; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(
            field(new().same_site(SameSite::Strict)),
            "a=b; Path=/; HttpOnly; SameSite=Strict"
        );
        assert_eq!(
            field(new().same_site(SameSite::None).secure()),
            "a=b; Path=/; HttpOnly; SameSite=None; Secure"
        );
        assert_eq!(
            field(new().secure().max_age(Duration::ZERO)),
            "a=b; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"
        );
    }

    #[test]
    fn no_attribute_can_be_forged() {
        for (name, value) in [
            ("a", "b; Domain=evil"),
            ("a", "b\r\nX: y"),
            ("a", "b c"),
            ("a", "b,c"),
            ("a", "\"b\""),
            ("a", "\\"),
            ("a", "é"),
            ("", "b"),
            ("a=b", "c"),
            ("a;b", "c"),
        ] {
            let error = Cookie::new(name, value).to_field().unwrap_err();
            let expected =
                format!("cookie {name:?}: its name or value holds what RFC 6265 does not allow");
            assert_eq!(error, expected);
        }
    }
}
