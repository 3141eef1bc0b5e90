//! Where a model server is: `http://HOST:PORT`, and a path before its own where a proxy wants one.

use std::fmt;

/// The address of a model server, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// An address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not the address of a model server: {problem}")]
pub struct BadAddress {
    given: String,
    problem: &'static str,
}

impl Address {
    /// Reads `http://HOST:PORT`; `http://` may be left out, and `/v1` at the end, with which
    /// OpenAI's clients write it, is taken away.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(given: &str) -> Result<Self, BadAddress> {
        let bad = |problem| BadAddress { given: given.escape_default().to_string(), problem };
        let rest = match given.trim().split_once("://") {
            None => given.trim(),
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(bad("https is not supported; give http:// on a network you trust, \
                                or the local end of a tunnel"));
            }
            Some(_) => return Err(bad("it must begin with http://")),
        };
        let rest = rest.trim_end_matches('/');
        let rest = rest.strip_suffix("/v1").unwrap_or(rest).trim_end_matches('/');
        let (authority, _path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let host = port.map_or(authority, |(host, _)| host);
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        if port.is_some_and(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(bad("the port must be a number up to 65535"));
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || "@?#".contains(c)) {
            return Err(bad("it may hold a host, a port and a path, and nothing else"));
        }
        Ok(Self(format!("http://{rest}")))
    }

    /// A port of this machine.
    #[must_use]
    pub fn local(port: u16) -> Self {
        Self(format!("http://127.0.0.1:{port}"))
    }

    /// With `http://` in front, and without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_it() {
        for (given, is) in [
            ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
            ("127.0.0.1:11434", "http://127.0.0.1:11434"),
            ("gpu-box", "http://gpu-box"),
            ("http://box:8000/v1/", "http://box:8000"),
            ("http://box/llm/v1", "http://box/llm"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(Address::parse(given).unwrap().as_str(), is);
        }
    }

    #[test]
    fn what_cannot_be_an_address_says_why() {
        for (given, why) in [
            ("https://box", "https is not supported"),
            ("ftp://box", "must begin with http://"),
            ("http://", "host is missing"),
            (":80", "host is missing"),
            ("http://box:port", "must be a number"),
            ("http://box:70000", "must be a number"),
            ("http://me@box", "nothing else"),
            ("http://a b", "nothing else"),
        ] {
            let error = Address::parse(given).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(given), "{error}");
        }
    }
}
