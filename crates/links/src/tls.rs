//! TLS settings from files, and keys that are pinned.
//!
//! A pin is about a key alone: whoever proves to have it is taken for whom it belongs to, and name,
//! dates and issuer of the certificate around it are not looked at.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use rialto_ledger::KeyPin;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
    pem::{self, PemObject},
};
use thiserror::Error;

/// HTTP/2 over TLS.
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Missing, unreadable, or not PEM.
    #[error("cannot read {what} from {}: {error}", path.display())]
    File {
        /// What should be in it.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// PEM without a certificate.
    #[error("no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// They do not belong together, or rustls does not support them.
    #[error("cannot use certificate {} with key {}: {error}", certificate.display(), key.display())]
    Pair {
        /// File of the certificates.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
    /// A certificate of a kind that is not supported.
    #[error("cannot read the certificate in {}: {error}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
    /// Of the client.
    #[error("cannot use the root certificates in {}: {error}", path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
}

/// A certificate chain with its private key.
#[derive(Debug, Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads PEM files: the certificates, own one first, and the private key.
    ///
    /// # Errors
    /// See [`TlsError`]; each names the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let certificates = read_certificates(certificate)?;
        let private_key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| file("a private key", key, error))?;
        let identity = CertifiedKey::from_der(certificates, private_key, &provider());
        let identity = identity.map_err(|error| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            error,
        })?;
        Ok(Self(Arc::new(identity)))
    }

    /// The pin of its key; none where the certificate is of a kind that peers cannot read either.
    pub fn pin(&self) -> Option<KeyPin> {
        pin_of(self.0.end_entity_cert().ok()?).ok()
    }
}

/// How a server presents itself, over HTTP/2 and HTTP/1.1.
#[derive(Debug, Clone)]
pub struct ServerTls {
    silent: Arc<ServerConfig>,
    asking: Arc<ServerConfig>,
}

impl ServerTls {
    /// A server with this certificate.
    pub fn new(identity: &Identity) -> Self {
        let server = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
            let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider supports TLS 1.2 and 1.3");
            let builder = match verifier {
                None => builder.with_no_client_auth(),
                Some(verifier) => builder.with_client_cert_verifier(verifier),
            };
            let resolver = SingleCertAndKey::from(Arc::clone(&identity.0));
            let mut config = builder.with_cert_resolver(Arc::new(resolver));
            config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
            Arc::new(config)
        };
        Self {
            silent: server(None),
            asking: server(Some(Arc::new(AnyClient(algorithms())))),
        }
    }

    /// Where nobody is known by a certificate clients are not asked for one: some ask their users then.
    /// Sessions of the one kind are not resumed as the other, so that each client is asked in time.
    pub(crate) fn config(&self, asks: bool) -> Arc<ServerConfig> {
        Arc::clone(match asks {
            true => &self.asking,
            false => &self.silent,
        })
    }
}

/// Takes every certificate whose key its client proves to have. Whose it is, is looked up by its pin;
/// that of a stranger says nothing.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        pin_of(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Takes a server for the peer's if it proves to have one of these keys.
#[derive(Debug)]
struct PinnedServer {
    pins: Vec<KeyPin>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A server has another key than the peer's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) struct PinMismatch {
    seen: KeyPin,
    expected: Vec<KeyPin>,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected: Vec<_> = self.expected.iter().map(KeyPin::to_string).collect();
        let (seen, expected) = (self.seen, expected.join(" or "));
        write!(f, "the server has the key {seen}, and {expected} is pinned")
    }
}

impl PinMismatch {
    /// Whether that is what a handshake failed at.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
        let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error
        else {
            return None;
        };
        other.downcast_ref()
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = pin_of(end_entity)?;
        if self.pins.contains(&seen) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected = self.pins.clone();
        let mismatch = OtherError(Arc::new(PinMismatch { seen, expected }));
        Err(CertificateError::Other(mismatch).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// How this node verifies the servers that it connects to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For packets.
    pub(crate) any_http: Arc<ClientConfig>,
    /// For WebSocket and SPSP.
    pub(crate) http1: Arc<ClientConfig>,
    /// The same for neighbours, who are shown our certificate when they ask.
    to_neighbours: Option<Arc<Self>>,
    /// The pin of that certificate's key.
    pub(crate) shown: Option<KeyPin>,
}

impl ClientTls {
    /// Trusts the system's roots and, if given, the certificates of a PEM file. `identity` is shown to
    /// neighbours, and to nobody else.
    ///
    /// # Errors
    /// Only for that file: a system without roots is one that connects to nobody over TLS.
    pub fn new(extra_roots: Option<&Path>, identity: Option<&Identity>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in native.errors {
            tracing::warn!(%error, "cannot read some of the system's root certificates");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = extra_roots {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|error| TlsError::Root {
                    path: path.to_owned(),
                    error,
                })?;
            }
        }
        let http1 = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tls = Self::with(http1);
        if let Some(identity) = identity {
            let mut known = ClientConfig::clone(&tls.http1);
            let resolver = SingleCertAndKey::from(Arc::clone(&identity.0));
            known.client_auth_cert_resolver = Arc::new(resolver);
            let shown = identity.pin();
            let known = Self {
                shown,
                ..Self::with(known)
            };
            tls.to_neighbours = Some(Arc::new(known));
        }
        Ok(tls)
    }

    fn with(http1: ClientConfig) -> Self {
        let mut any_http = http1.clone();
        any_http.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        Self {
            any_http: Arc::new(any_http),
            http1: Arc::new(http1),
            to_neighbours: None,
            shown: None,
        }
    }

    /// For a neighbour whose server has one of these keys, if there are any.
    pub(crate) fn to_neighbour(&self, pins: &[KeyPin]) -> Self {
        let base = self.to_neighbours.as_deref().unwrap_or(self);
        if pins.is_empty() {
            return base.clone();
        }
        // rustls resumes no session that another verifier let stand.
        let mut http1 = ClientConfig::clone(&base.http1);
        let verifier = PinnedServer {
            pins: pins.to_vec(),
            algorithms: algorithms(),
        };
        http1
            .dangerous()
            .set_certificate_verifier(Arc::new(verifier));
        Self {
            shown: base.shown,
            ..Self::with(http1)
        }
    }

    /// Whether neighbours are shown a certificate.
    pub fn shows_certificate(&self) -> bool {
        self.to_neighbours.is_some()
    }

    /// For ILP over HTTP: offers HTTP/2 and HTTP/1.1.
    pub fn for_packets(&self) -> &Arc<ClientConfig> {
        &self.any_http
    }

    /// For BTP: WebSocket is an upgrade of HTTP/1.1.
    pub fn for_websocket(&self) -> &Arc<ClientConfig> {
        &self.http1
    }
}

/// The pin of the key in a PEM file: of its first certificate, or of a public key.
///
/// # Errors
/// See [`TlsError`]; each names the file.
pub fn pin_of_file(path: &Path) -> Result<KeyPin, TlsError> {
    match CertificateDer::from_pem_file(path) {
        Ok(certificate) => pin_of(&certificate).map_err(|error| TlsError::Certificate {
            path: path.to_owned(),
            error,
        }),
        Err(pem::Error::NoItemsFound) => SubjectPublicKeyInfoDer::from_pem_file(path)
            .map(|key| pin_of_key(&key))
            .map_err(|error| file("a certificate or public key", path, error)),
        Err(error) => Err(file("a certificate", path, error)),
    }
}

/// The pin of a certificate's key.
pub(crate) fn pin_of(certificate: &CertificateDer<'_>) -> Result<KeyPin, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(pin_of_key(&parsed.subject_public_key_info()))
}

fn pin_of_key(key: &SubjectPublicKeyInfoDer<'_>) -> KeyPin {
    let digest = digest::digest(&digest::SHA256, key);
    KeyPin(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file("certificates", path, error))?;
    match certificates.is_empty() {
        true => Err(TlsError::Empty(path.to_owned())),
        false => Ok(certificates),
    }
}

fn file(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    TlsError::File { what, path, error }
}
