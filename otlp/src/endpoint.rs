//! Where a receiver is: the base URL of OTLP/HTTP, to which the paths of the signals are added.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// See the module. `http://` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, and port, as a socket is opened to it.
    pub address: (String, u16),
    /// The same as the `Host` header has it.
    pub authority: String,
    /// Path of the URL without a slash at its end; usually empty.
    base_path: String,
}

/// What is no endpoint, and what to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; give the base URL of a receiver of OTLP over HTTP, such as http://127.0.0.1:4318{remedy}")]
pub struct BadEndpoint {
    problem: &'static str,
    remedy: &'static str,
}

impl Endpoint {
    /// Path of a signal (`traces`, `metrics`).
    pub fn path(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.base_path)
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |problem, remedy| Err(BadEndpoint { problem, remedy });
        let Ok(url) = text.parse::<Url>() else { return bad("is no URL", "") };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return bad("is no http:// URL", "");
        };
        let path = url.path().trim_end_matches('/');
        match url.scheme() {
            "http" => {}
            "https" => {
                return bad("is https, which is not spoken here", ", of a collector beside this program, which can");
            }
            _ => return bad("is no http:// URL", ""),
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return bad("has more than host, port and path", "");
        }
        if path.ends_with("/v1/traces") || path.ends_with("/v1/metrics") {
            return bad("has the path of one signal", ", to which each signal adds its own");
        }
        let authority = if url.port().is_some() { format!("{host}:{port}") } else { host.to_owned() };
        // Brackets are for URLs.
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { address: (name, port), authority, base_path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.base_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_url_and_is_shown_as_it_was_given() {
        for (text, address, path) in [
            ("http://127.0.0.1:4318", ("127.0.0.1", 4318), "/v1/traces"),
            ("http://collector:4318/", ("collector", 4318), "/v1/traces"),
            ("http://collector/otlp/", ("collector", 80), "/otlp/v1/traces"),
            ("http://[::1]:4318", ("::1", 4318), "/v1/traces"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!((endpoint.address.0.as_str(), endpoint.address.1), address, "{text}");
            assert_eq!(endpoint.path("traces"), path, "{text}");
            assert_eq!(endpoint.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_to_give() {
        for (text, part) in [
            ("127.0.0.1:4318", "is no URL"),
            ("localhost:4318", "is no http:// URL"),
            ("grpc://h:4317", "is no http:// URL"),
            ("https://h:4318", "a collector beside this program"),
            ("http://me:secret@h:4318", "more than host, port and path"),
            ("http://h:4318?key=1", "more than host, port and path"),
            ("http://h:4318/v1/traces", "the path of one signal"),
            ("", "is no URL"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(part) && error.contains("http://127.0.0.1:4318"), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
