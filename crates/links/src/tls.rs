//! TLS settings from files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
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
        error: rustls_pki_types::pem::Error,
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
    /// Of the client.
    #[error("cannot use the root certificates in {}: {error}", path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
}

/// A server's settings from PEM files: its certificates, own one first, and its private key. Offers
/// HTTP/2 and HTTP/1.1.
///
/// # Errors
/// See [`TlsError`]; each names the file.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = read_certificates(certificate)?;
    let private_key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| file("a private key", key, error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(certificates, private_key)
        })
        .map_err(|error| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            error,
        })?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// How this node verifies the servers that it connects to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// For packets.
    pub(crate) any_http: Arc<ClientConfig>,
    /// For WebSocket and SPSP.
    pub(crate) http1: Arc<ClientConfig>,
}

impl ClientTls {
    /// Trusts the system's roots and, if given, the certificates of a PEM file.
    ///
    /// # Errors
    /// Only for that file: a system without roots is one that connects to nobody over TLS.
    pub fn new(extra_roots: Option<&Path>) -> Result<Self, TlsError> {
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
        let http1 = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut any_http = http1.clone();
        any_http.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        Ok(Self {
            any_http: Arc::new(any_http),
            http1: Arc::new(http1),
        })
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

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file("certificates", path, error))?;
    match certificates.is_empty() {
        true => Err(TlsError::Empty(path.to_owned())),
        false => Ok(certificates),
    }
}

fn file(what: &'static str, path: &Path, error: rustls_pki_types::pem::Error) -> TlsError {
    let path = path.to_owned();
    TlsError::File { what, path, error }
}
