//! From a server's name to its addresses. The library's own way starts a thread for each look-up,
//! also where there is nothing to look up, and panics where it gets none.

use std::io;
use std::net::IpAddr;
use std::thread;

use crossbeam_channel::{RecvTimeoutError, bounded};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration;

/// Looks names up with a thread, which may be had or not, and numbers without.
#[derive(Debug)]
pub(super) struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let never = NextTimeout { after: Duration::NotHappening, ..timeout };
        if timeout.after.is_not_happening() || is_number(uri) {
            return DefaultResolver::default().resolve(uri, config, never);
        }
        let (send, found) = bounded(1);
        let (uri, config) = (uri.clone(), config.clone());
        let look_up = move || {
            // Nobody waits any more: it took too long.
            let _ = send.send(DefaultResolver::default().resolve(&uri, &config, never));
        };
        thread::Builder::new().name("name".to_owned()).spawn(look_up).map_err(no_thread)?;
        match found.recv_timeout(*timeout.after) {
            Ok(found) => found,
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
            Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
        }
    }
}

fn is_number(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Not of the kind that it has, which elsewhere means that a server was silent.
fn no_thread(err: io::Error) -> Error {
    Error::Io(io::Error::other(format!("could not start a thread to look its name up: {err}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_no_look_up() {
        for (uri, number) in [
            ("http://127.0.0.1:11434/api", true),
            ("http://[::1]:80/", true),
            ("http://localhost:11434/", false),
            ("https://gpu.example.org/", false),
        ] {
            assert_eq!(is_number(&uri.parse().unwrap()), number, "{uri}");
        }
    }
}
