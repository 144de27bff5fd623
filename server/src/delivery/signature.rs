//! Standard Webhooks 1.0.0: the secret and the signature by which a receiver knows that an event comes from this server.
//!
//! `webhook-signature` is `v1,` and the Base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`, with the bytes that stand in Base64
//! behind `whsec_`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use uuid::Uuid;

use crate::store::SigningSecret;

/// What each secret begins with when it is shown.
pub const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a secret; the specification allows 24 to 64.
const SECRET_BYTES: usize = 32;

/// A new secret. Fails only when the system's random generator does.
pub fn new_secret() -> Result<SigningSecret, rand::rand_core::OsError> {
    let mut bytes = vec![0; SECRET_BYTES];
    OsRng.try_fill_bytes(&mut bytes)?;
    Ok(SigningSecret(bytes))
}

/// The secret as its receiver gets it.
pub fn shown(secret: &SigningSecret) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(&secret.0))
}

/// The value of `webhook-signature`.
pub fn signature(secret: &SigningSecret, id: Uuid, timestamp_s: i64, body: &[u8]) -> String {
    let mut mac: Hmac<Sha256> = match Hmac::new_from_slice(&secret.0) {
        Ok(mac) => mac,
        // HMAC takes keys of any length.
        Err(_) => return String::new(),
    };
    mac.update(format!("{id}.{timestamp_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_enough_shown_as_the_specification_says_and_never_the_same() {
        let (one, other) = (new_secret().expect("random"), new_secret().expect("random"));
        assert_ne!(one, other);
        let text = shown(&one);
        let bytes = STANDARD.decode(text.strip_prefix("whsec_").expect("the prefix")).expect("Base64");
        assert_eq!(bytes, one.0);
        assert!((24..=64).contains(&bytes.len()));
        assert!(!format!("{one:?}").contains(&text[6..12]), "not in a log");
    }

    /// Computed with OpenSSL: `printf 'ID.TIME.BODY' | openssl dgst -sha256 -hmac KEY -binary | base64`.
    #[test]
    fn a_signature_is_the_one_that_openssl_computes() {
        let id: Uuid = "0190a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b".parse().expect("an id");
        let secret = SigningSecret(b"0123456789abcdefghijklmnopqrstuv".to_vec());
        assert_eq!(
            signature(&secret, id, 1_700_000_000, br#"{"a":"\u00e9"}"#),
            "v1,wBJj2i/561MEZRUC6AGttdo4GPKyv+H5r9KqCb/roz4="
        );
    }
}
