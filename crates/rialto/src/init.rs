//! `init`: the configuration and the secrets of a new node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rialto_node::secrets::random;
use rialto_packet::Address;

use crate::{
    args::InitArgs,
    failure::Failure,
    output::Output,
    secret::{Token, write_all_private},
};

/// Name of the configuration file.
pub(crate) const CONFIG_FILE: &str = "rialto.toml";
const SECRET_FILE: &str = "secret.key";
const TOKEN_FILE: &str = "admin.token";

/// What a new node's configuration says.
/// How the address of a node is written that its parent will tell.
const UNKNOWN: &str = "unknown";

#[derive(Debug)]
pub(crate) struct NewNode<'a> {
    pub(crate) name: &'a str,
    pub(crate) ilp_address: &'a str,
    pub(crate) listen: &'a str,
    pub(crate) admin_listen: &'a str,
    pub(crate) allow_insecure_receivers: bool,
}

pub(crate) fn init(args: &InitArgs) -> Result<(), Failure> {
    let ilp_address = match &args.ilp_address {
        Some(address) => address.clone(),
        None => format!("test.{}", args.name),
    };
    if ilp_address != UNKNOWN
        && let Err(error) = ilp_address.parse::<Address>()
    {
        let hint = if args.ilp_address.is_none() {
            ": say --ilp-address"
        } else {
            ""
        };
        return Err(Failure::usage(format!(
            "ILP address '{ilp_address}': {error}{hint}"
        )));
    }
    let node = NewNode {
        name: &args.name,
        ilp_address: &ilp_address,
        listen: "127.0.0.1:7770",
        admin_listen: "127.0.0.1:7771",
        allow_insecure_receivers: false,
    };
    let config = write(&args.dir, &node)?;
    let config = config.display();
    Output::default().note(&format!(
        "made {config}, and beside it {SECRET_FILE} and {TOKEN_FILE}; next: rialto run --config {config}"
    ));
    Ok(())
}

/// Writes the files and overwrites none. Returns the path of the configuration.
pub(crate) fn write(dir: &Path, node: &NewNode<'_>) -> Result<PathBuf, Failure> {
    fs::create_dir_all(dir)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))?;
    let config = dir.join(CONFIG_FILE);
    // The configuration comes last: where it stands, the secrets stand too.
    let files = [
        (
            dir.join(SECRET_FILE),
            BASE64_STANDARD.encode(random::<32>()) + "\n",
        ),
        (
            dir.join(TOKEN_FILE),
            Token::generate("admin").reveal().to_owned() + "\n",
        ),
        (config.clone(), text(node)),
    ];
    write_all_private(&files)?;
    Ok(config)
}

fn text(node: &NewNode<'_>) -> String {
    let NewNode {
        name,
        ilp_address,
        listen,
        admin_listen,
        allow_insecure_receivers,
    } = node;
    let name = quoted(name);
    let ilp_address = quoted(ilp_address);
    format!(
        "\
[node]
name = {name}                      # for people
ilp_address = {ilp_address}
listen = \"{listen}\"              # peers and payers connect here
# public_url = \"https://node.example\"  # how they reach it; payment pointers are made from it
data_dir = \"data\"                # relative to this file, as all paths
secret_file = \"{SECRET_FILE}\"
allow_insecure_receivers = {allow_insecure_receivers}   # pay http:// and loopback receivers: for development
# default_account = \"alice\"      # who is paid at /.well-known/pay
durability = \"standard\"          # or \"strict\": answers wait until they survive a power failure
spread = \"0\"                     # kept of each conversion
# tls_cert_file = \"cert.pem\"
# tls_key_file = \"key.pem\"
# tls_client_cert_file = \"cert.pem\"  # shown to neighbours who ask for a certificate
# tls_client_key_file = \"key.pem\"

[admin]
listen = \"{admin_listen}\"        # for operators only: keep it off the Internet
token_file = \"{TOKEN_FILE}\"

[limits.unsynced]                # most that may be in flight or not yet safe on disk, by asset
# \"USD/9\" = \"1000000000\"

[log]
level = \"info\"
format = \"auto\"                  # pretty on a terminal, JSON otherwise
"
    )
}

/// As a TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(character)));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &'static str) -> NewNode<'static> {
        NewNode {
            name,
            ilp_address: "test.alice",
            listen: "127.0.0.1:0",
            admin_listen: "127.0.0.1:0",
            allow_insecure_receivers: true,
        }
    }

    #[test]
    fn what_is_made_passes_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), &node("al\"i\\ce\n")).unwrap();
        let loaded = rialto_node::config::load(&config, &[]).unwrap();
        rialto_node::check(&loaded).unwrap();
        assert_eq!(loaded.config.node.name, "al\"i\\ce\n");
        assert!(loaded.config.node.allow_insecure_receivers);
    }

    #[test]
    fn one_file_that_exists_keeps_all_from_being_made() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TOKEN_FILE), "mine").unwrap();
        let failure = write(folder.path(), &node("alice")).unwrap_err();
        assert!(
            failure
                .message
                .ends_with("admin.token exists already and is never overwritten")
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
