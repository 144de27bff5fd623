//! Which addresses a webhook may lead to, and the names behind which they stand: the guard against requests that this server
//! would make into its own network for somebody else (rule D2).
//!
//! A name is looked up by the very code that gives its addresses to the connection ([`Guard::addresses`]), so what was checked is
//! what is connected to; an answer of the DNS that changes between check and use changes nothing. A name is refused when any of
//! its addresses is.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;

use url::{Host, Url};

/// Networks of IPv4 that are not the public internet (IANA's registry of special-purpose addresses, and multicast).
const REFUSED_IPV4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),       // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // shared by carriers (CGNAT)
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, and the metadata of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 52, 193, 0), 24), // AMT
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, and broadcast
];

/// The one network of IPv6 that is allocated for the public internet. All forms that hold an IPv4 address (mapped, compatible,
/// NAT64), loopback, unique-local, link-local and multicast are outside of it.
const PUBLIC_IPV6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public in [`PUBLIC_IPV6`].
const REFUSED_IPV6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Whether an address is one of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let is_in =
                |network: &(Ipv4Addr, u32)| (address.to_bits() ^ network.0.to_bits()).leading_zeros() >= network.1;
            !REFUSED_IPV4.iter().any(is_in)
        }
        IpAddr::V6(address) => {
            let is_in =
                |network: &(Ipv6Addr, u32)| (address.to_bits() ^ network.0.to_bits()).leading_zeros() >= network.1;
            is_in(&PUBLIC_IPV6) && !REFUSED_IPV6.iter().any(is_in)
        }
    }
}

/// Why a webhook's URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too long.
    #[error("it is longer than {0} bytes; send a shorter one")]
    TooLong(u64),
    /// Not a URL, or without a host.
    #[error("it is not a URL; send one such as https://example.com/hook")]
    NotAUrl,
    /// Another scheme.
    #[error("it is neither http:// nor https://; send one that is")]
    Scheme,
    /// With a name or a password.
    #[error("it holds a user name or a password; leave them out, deliveries are signed")]
    UserInfo,
    /// No address.
    #[error("its host has no address; check the name, or try again later if it is right")]
    Unresolved,
    /// An address that is not to be reached from here.
    #[error("it leads to an address that is not public; send one that can be reached from the internet")]
    NotPublic,
}

/// How names are looked up: a seam for tests, in which names lead elsewhere from one moment to the next.
pub type Lookup = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// The system's resolver.
pub fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            // The port is a part of the question that changes nothing.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// See the module.
#[derive(Clone)]
pub struct Guard {
    url_bytes_max: u64,
    private_allowed: bool,
    lookup: Lookup,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("url_bytes_max", &self.url_bytes_max)
            .field("private_allowed", &self.private_allowed)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// With `private_allowed`, any address will do.
    pub fn new(url_bytes_max: u64, private_allowed: bool, lookup: Lookup) -> Self {
        Self { url_bytes_max, private_allowed, lookup }
    }

    /// A webhook's URL, if it has the form of one and does not name an address that is refused. Addresses in unusual spellings
    /// (`0x7f.1`, `2130706433`) are read as the client will read them.
    pub fn parse(&self, text: &str) -> Result<Url, Unfit> {
        if text.len() as u64 > self.url_bytes_max {
            return Err(Unfit::TooLong(self.url_bytes_max));
        }
        let url: Url = text.parse().map_err(|_| Unfit::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Unfit::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unfit::UserInfo);
        }
        let literal = match url.host() {
            None => return Err(Unfit::NotAUrl),
            Some(Host::Domain(_)) => return Ok(url),
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
        };
        if self.allows(literal) { Ok(url) } else { Err(Unfit::NotPublic) }
    }

    /// The same, and its name must lead to addresses that are allowed now.
    pub async fn check(&self, text: &str) -> Result<Url, Unfit> {
        let url = self.parse(text)?;
        if let Some(Host::Domain(name)) = url.host() {
            self.addresses(name.to_owned()).await?;
        }
        Ok(url)
    }

    /// The addresses of a name, all of which are allowed.
    pub async fn addresses(&self, name: String) -> Result<Vec<IpAddr>, Unfit> {
        let found = (self.lookup)(name).await.map_err(|_| Unfit::Unresolved)?;
        match found.is_empty() {
            true => Err(Unfit::Unresolved),
            false if found.iter().all(|address| self.allows(*address)) => Ok(found),
            false => Err(Unfit::NotPublic),
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.private_allowed || is_public(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each with whether it is the public internet.
    const ADDRESSES: &[(&str, bool)] = &[
        ("0.0.0.0", false),
        ("0.255.255.255", false),
        ("1.0.0.0", true),
        ("8.8.8.8", true),
        ("9.255.255.255", true),
        ("10.0.0.0", false),
        ("10.255.255.255", false),
        ("11.0.0.0", true),
        ("100.63.255.255", true),
        ("100.64.0.0", false),
        ("100.127.255.255", false),
        ("100.128.0.0", true),
        ("127.0.0.1", false),
        ("127.255.255.254", false),
        ("128.0.0.1", true),
        ("169.253.255.255", true),
        ("169.254.169.254", false),
        ("172.15.255.255", true),
        ("172.16.0.1", false),
        ("172.31.255.255", false),
        ("172.32.0.0", true),
        ("192.0.0.8", false),
        ("192.0.1.1", true),
        ("192.0.2.1", false),
        ("192.52.193.1", false),
        ("192.88.99.1", false),
        ("192.167.255.255", true),
        ("192.168.1.1", false),
        ("192.169.0.0", true),
        ("198.17.255.255", true),
        ("198.18.0.1", false),
        ("198.19.255.255", false),
        ("198.20.0.0", true),
        ("198.51.100.7", false),
        ("203.0.113.7", false),
        ("223.255.255.255", true),
        ("224.0.0.1", false),
        ("239.255.255.255", false),
        ("240.0.0.1", false),
        ("255.255.255.255", false),
        ("::", false),
        ("::1", false),
        ("::7f00:1", false),
        ("::ffff:127.0.0.1", false),
        ("::ffff:8.8.8.8", false),
        ("::8.8.8.8", false),
        ("64:ff9b::a00:1", false),
        ("64:ff9b::808:808", false),
        ("64:ff9b:1::1", false),
        ("100::1", false),
        ("2000::1", true),
        ("2001::1", false),
        ("2001:2::1", false),
        ("2001:10::1", false),
        ("2001:20::1", false),
        ("2001:200::1", true),
        ("2001:4860:4860::8888", true),
        ("2001:db8::1", false),
        ("2002:7f00:1::", false),
        ("2002:808:808::1", false),
        ("2606:4700::1111", true),
        ("3ffe:ffff::1", true),
        ("3fff::1", false),
        ("3fff:fff::1", false),
        ("4000::1", false),
        ("5f00::1", false),
        ("fc00::1", false),
        ("fd12:3456::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
    ];

    #[test]
    fn addresses_that_are_not_the_public_internet_are_refused_in_every_form() {
        for (address, public) in ADDRESSES {
            assert_eq!(is_public(address.parse().expect(address)), *public, "{address}");
        }
    }

    fn guard(private_allowed: bool, addresses: &'static [&'static str]) -> Guard {
        let lookup: Lookup = Arc::new(move |_| {
            let found = addresses.iter().map(|address| address.parse().expect("an address")).collect();
            Box::pin(std::future::ready(Ok(found)))
        });
        Guard::new(100, private_allowed, lookup)
    }

    #[test]
    fn a_url_is_refused_with_what_is_wrong_with_it() {
        let long = format!("https://example.com/{}", "a".repeat(100));
        for (text, expected) in [
            ("https://example.com/hook?a=b", None),
            ("http://example.com:8080", None),
            ("http://8.8.8.8/", None),
            ("https://[2606:4700::1111]/", None),
            (long.as_str(), Some(Unfit::TooLong(100))),
            ("", Some(Unfit::NotAUrl)),
            ("example.com", Some(Unfit::NotAUrl)),
            ("http://", Some(Unfit::NotAUrl)),
            ("https:///", Some(Unfit::NotAUrl)),
            ("http://a b/", Some(Unfit::NotAUrl)),
            ("ftp://example.com", Some(Unfit::Scheme)),
            ("file:///etc/passwd", Some(Unfit::Scheme)),
            ("gopher://example.com", Some(Unfit::Scheme)),
            ("javascript:alert(1)", Some(Unfit::Scheme)),
            ("http://user@example.com", Some(Unfit::UserInfo)),
            ("http://:secret@example.com", Some(Unfit::UserInfo)),
            ("http://8.8.8.8@127.0.0.1/", Some(Unfit::UserInfo)),
            ("http://127.0.0.1/", Some(Unfit::NotPublic)),
            ("http://127.1/", Some(Unfit::NotPublic)),
            ("http://0x7f.1/", Some(Unfit::NotPublic)),
            ("http://0177.0.0.1/", Some(Unfit::NotPublic)),
            ("http://2130706433/", Some(Unfit::NotPublic)),
            ("http://１２７.0.0.1/", Some(Unfit::NotPublic)),
            ("http://127.0.0.1./", Some(Unfit::NotPublic)),
            ("http:\\\\127.0.0.1", Some(Unfit::NotPublic)),
            ("http://169.254.169.254/latest/meta-data", Some(Unfit::NotPublic)),
            ("http://0/", Some(Unfit::NotPublic)),
            ("http://[::1]/", Some(Unfit::NotPublic)),
            ("http://[::ffff:127.0.0.1]/", Some(Unfit::NotPublic)),
            ("http://[::ffff:7f00:1]/", Some(Unfit::NotPublic)),
            ("http://[64:ff9b::7f00:1]/", Some(Unfit::NotPublic)),
        ] {
            assert_eq!(guard(false, &[]).parse(text).err(), expected, "{text}");
        }
        assert!(guard(true, &[]).parse("http://127.0.0.1:9/").is_ok(), "with leave");
        assert_eq!(guard(true, &[]).parse("ftp://127.0.0.1").err(), Some(Unfit::Scheme), "leave is for addresses");
    }

    #[tokio::test]
    async fn a_name_is_refused_when_any_of_its_addresses_is() {
        for (addresses, expected) in [
            (&["8.8.8.8", "2606:4700::1111"][..], None),
            (&["127.0.0.1"], Some(Unfit::NotPublic)),
            (&["8.8.8.8", "10.0.0.1"], Some(Unfit::NotPublic)),
            (&["::ffff:10.0.0.1"], Some(Unfit::NotPublic)),
            (&[], Some(Unfit::Unresolved)),
        ] {
            let checked = guard(false, addresses).check("https://name.example/").await;
            assert_eq!(checked.err(), expected, "{addresses:?}");
        }
        assert!(guard(true, &["10.0.0.1"]).check("https://name.example/").await.is_ok());
    }

    #[tokio::test]
    async fn localhost_is_refused_by_the_real_resolver() {
        let guard = Guard::new(100, false, system());
        for text in ["http://localhost/", "http://LOCALHOST./"] {
            let refused = guard.check(text).await.err();
            assert!(matches!(refused, Some(Unfit::NotPublic | Unfit::Unresolved)), "{text}: {refused:?}");
        }
    }

    proptest! {
        #[test]
        fn any_ipv4_address_in_an_ipv6_form_is_refused(bits: u32) {
            let high = |prefix: u128| IpAddr::V6(Ipv6Addr::from_bits(prefix | u128::from(bits)));
            prop_assert!(!is_public(high(0)));
            prop_assert!(!is_public(high(0xffff << 32)));
            prop_assert!(!is_public(high(0x0064_ff9b << 96)));
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::from_bits((0x2002 << 112) | (u128::from(bits) << 80)))));
        }

        #[test]
        fn no_text_makes_the_guard_panic_or_lets_a_literal_through(text in ".{0,60}") {
            if let Ok(url) = guard(false, &[]).parse(&text) {
                match url.host() {
                    Some(Host::Ipv4(address)) => prop_assert!(is_public(IpAddr::V4(address))),
                    Some(Host::Ipv6(address)) => prop_assert!(is_public(IpAddr::V6(address))),
                    host => prop_assert!(host.is_some()),
                }
            }
        }
    }
}
