use std::{fs, path::PathBuf};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rialto_connector::LinkId;
use rialto_links::{Account, ClientTls, HttpPeer, Identity, ServerTls, TlsError};

use crate::support::{ALICE, BOB, FULFILL, Node, Options, PREPARE, account, run, to_btp, to_http};

/// A certificate for localhost in files that are removed in the end.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new(test: &str) -> Self {
        let name = format!("rialto-links-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self { folder }
    }

    fn identity(&self) -> Identity {
        Identity::read(&self.folder.join("cert.pem"), &self.folder.join("key.pem")).unwrap()
    }

    fn server(&self) -> ServerTls {
        ServerTls::new(&self.identity())
    }

    fn client(&self) -> ClientTls {
        ClientTls::new(Some(&self.folder.join("cert.pem")), None).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

async fn hub(files: &Files) -> Node {
    Node::start(Options {
        server_tls: Some(files.server()),
        ..Options::default()
    })
    .await
}

async fn node(files: &Files, hub: Account) -> Node {
    Node::start(Options {
        accounts: vec![hub],
        client_tls: files.client(),
        ..Options::default()
    })
    .await
}

#[test]
fn packets_over_https_share_one_http2_connection() {
    run(async {
        let files = Files::new("https");
        let hub = hub(&files).await;
        let url = format!("https://localhost:{}/ilp", hub.address.port());
        let node = node(
            &files,
            to_http(
                account(ALICE, "hub", "h"),
                HttpPeer::new(&url, "b").unwrap(),
            ),
        )
        .await;
        for request in 1..=3 {
            node.forward(LinkId::Http(ALICE), request, PREPARE);
            let (account, link, request, _) = hub.prepare().await;
            assert_eq!(account, BOB);
            // Not yet answered: the next one is a second stream.
            if request.0 > 0 {
                assert_eq!(hub.worker.connection_count(), 1);
            }
            hub.answer(link, request, FULFILL);
            assert_eq!(&node.reply().await.2[..], FULFILL);
        }
    });
}

#[test]
fn btp_over_wss() {
    run(async {
        let files = Files::new("wss");
        let hub = hub(&files).await;
        let uri = format!("btp+wss://:b@localhost:{}/ilp/btp", hub.address.port());
        let node = node(&files, to_btp(account(ALICE, "hub", "h"), &uri)).await;
        node.dial();
        let (up, _) = node.link_up().await;
        hub.link_up().await;
        node.forward(up, 1, PREPARE);
        let (_, link, request, _) = hub.prepare().await;
        hub.answer(link, request, FULFILL);
        assert_eq!(&node.reply().await.2[..], FULFILL);
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new("files");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.folder.join(name));
    let missing = files.folder.join("missing.pem");
    let error = Identity::read(&missing, &key).unwrap_err().to_string();
    assert!(
        error.contains("certificates") && error.contains("missing.pem"),
        "{error}"
    );
    let error = Identity::read(&cert, &missing).unwrap_err().to_string();
    assert!(
        error.contains("a private key") && error.contains("missing.pem"),
        "{error}"
    );
    let error = Identity::read(&cert, &cert).unwrap_err().to_string();
    assert!(
        error.contains("a private key") && error.contains("cert.pem"),
        "{error}"
    );
    assert!(matches!(Identity::read(&key, &key), Err(TlsError::Empty(path)) if path == key));
    let other = Files::new("other");
    let pair = Identity::read(&cert, &other.folder.join("key.pem"));
    assert!(matches!(pair, Err(TlsError::Pair { .. })), "{pair:?}");
    assert!(matches!(
        ClientTls::new(Some(&missing), None),
        Err(TlsError::File { .. })
    ));
}
