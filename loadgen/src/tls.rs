//! Whom to trust when the target speaks TLS.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whose certificates a target may show.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those of the system's authorities.
    System,
    /// Those and the authorities whose certificates these are, in PEM form.
    SystemAnd(&'a [u8]),
    /// Anybody's: the answers may come from somebody else.
    Anybody,
}

/// A configuration for clients; `alpn` are the protocols to offer.
pub fn client_config(trust: Trust<'_>, alpn: &[&[u8]]) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = match trust {
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))).with_no_client_auth()
        }
        Trust::System => builder.with_root_certificates(roots(&[])?).with_no_client_auth(),
        Trust::SystemAnd(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// What went wrong, and, if it is about whom to trust, what to do.
pub fn with_remedy(problem: String) -> String {
    match problem.contains("invalid peer certificate") {
        true => format!("{problem}; trust its authority with --tls-ca FILE, or anybody with --tls-insecure"),
        false => problem,
    }
}

fn roots(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // A system without authorities is no error here: the handshake will say whose certificate nobody knows.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let bad = |error: String| {
        let message = format!("--tls-ca: {error}; give a PEM file with the authority's certificate");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    Ok(roots)
}

/// Takes any certificate; the signatures made with it are still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
