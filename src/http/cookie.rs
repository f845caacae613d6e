//! A cookie that a response sets (RFC 6265 section 4.1).

use std::fmt::Write;
use std::time::Duration;

use super::head::is_token;

/// A cookie for [`Response::cookie`](crate::Response::cookie), safe from the beginning: for every path of this host, hidden
/// from scripts (`HttpOnly`), and left out of requests that pages of other sites make, but for links that the visitor
/// follows (`SameSite=Lax`). It goes when the browser is closed.
///
/// ```
/// use std::time::Duration;
/// use tiny_sse::{Cookie, Response};
///
/// let session = Cookie::new("session", "b8f1").max_age(Duration::from_secs(3600)).secure();
/// let response = Response::new(204).cookie(session);
/// let line = "session=b8f1; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600";
/// assert_eq!(response.header_value("set-cookie"), Some(line));
/// ```
#[derive(Clone, Debug)]
pub struct Cookie {
    name: String,
    value: String,
    same_site: SameSite,
    secure: bool,
    for_scripts: bool,
    max_age: Option<Duration>,
}

/// Which requests that pages of other sites make bring a cookie along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// None.
    Strict,
    /// Links that the visitor follows.
    Lax,
    /// All; browsers want `Secure` with it, which is added.
    None,
}

impl Cookie {
    /// A cookie of this name and value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Cookie {
        Cookie {
            name: name.into(),
            value: value.into(),
            same_site: SameSite::Lax,
            secure: false,
            for_scripts: false,
            max_age: None,
        }
    }

    /// Sends the cookie over TLS only; browsers make an exception for localhost.
    pub fn secure(mut self) -> Cookie {
        self.secure = true;
        self
    }

    /// Sets which requests of other sites' pages bring the cookie.
    pub fn same_site(mut self, same_site: SameSite) -> Cookie {
        self.same_site = same_site;
        self
    }

    /// Keeps the cookie for so long; zero deletes it.
    pub fn max_age(mut self, time: Duration) -> Cookie {
        self.max_age = Some(time);
        self
    }

    /// Lets scripts of the page read the cookie, and so whoever gets a script into the page.
    pub fn for_scripts(mut self) -> Cookie {
        self.for_scripts = true;
        self
    }

    /// Writes the value of the field: `set-cookie-string = cookie-pair *( ";" SP cookie-av )`.
    pub(super) fn to_field(&self) -> Result<String, String> {
        if !is_token(self.name.as_bytes()) {
            return Err(format!("{:?} is not a cookie's name", self.name));
        }
        // `cookie-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E`
        let is_octet = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | ',' | ';' | '\\');
        if let Some(found) = self.value.chars().find(|c| !is_octet(*c)) {
            return Err(format!("a cookie's value cannot contain {found:?}"));
        }
        let mut field = format!("{}={}; Path=/", self.name, self.value);
        if !self.for_scripts {
            field += "; HttpOnly";
        }
        // Writing to a string cannot fail.
        let _ = write!(field, "; SameSite={:?}", self.same_site);
        if self.secure || self.same_site == SameSite::None {
            field += "; Secure";
        }
        if let Some(time) = self.max_age {
            let _ = write!(field, "; Max-Age={}", time.as_secs());
        }
        Ok(field)
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
            field(new().same_site(SameSite::Strict).for_scripts()),
            "a=b; Path=/; SameSite=Strict"
        );
        assert_eq!(
            field(new().same_site(SameSite::None)),
            "a=b; Path=/; HttpOnly; SameSite=None; Secure"
        ); // Browsers refuse the one without the other.
        assert_eq!(
            field(new().secure().max_age(Duration::ZERO)),
            "a=b; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"
        );
    }

    #[test]
    fn no_attribute_can_be_forged() {
        #[track_caller]
        fn check(name: &str, value: &str, expected: &str) {
            let error = Cookie::new(name, value).to_field().unwrap_err();
            assert_eq!(error, expected);
        }
        check("a", "b; Domain=evil", "a cookie's value cannot contain ';'");
        check("a", "b\r\nX: y", "a cookie's value cannot contain '\\r'");
        check("a", "b c", "a cookie's value cannot contain ' '");
        check("a", "b,c", "a cookie's value cannot contain ','");
        check("a", "\"b\"", "a cookie's value cannot contain '\"'");
        check("a", "\\", "a cookie's value cannot contain '\\\\'");
        check("a", "é", "a cookie's value cannot contain 'é'");
        check("", "b", "\"\" is not a cookie's name");
        check("a=b", "c", "\"a=b\" is not a cookie's name");
        check("a;b", "c", "\"a;b\" is not a cookie's name");
    }
}
