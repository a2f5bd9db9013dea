//! `certificate`: keys that peers know by their pins.

use std::{fs, path::Path};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rialto_links::tls::pin_of_file;

use crate::{
    args::{CertificateCommand, CertificateMakeArgs, CertificatePinArgs},
    failure::{Exit, Failure},
    output::{self, Output},
    secret::write_all_private,
};

const CERTIFICATE_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";

pub(crate) fn certificate(command: &CertificateCommand) -> Result<(), Failure> {
    match command {
        CertificateCommand::Make(args) => make(args),
        CertificateCommand::Pin(args) => pin(args),
    }
}

/// The files are both new or none is made. The certificate comes last: where it stands, its key does too.
fn make(args: &CertificateMakeArgs) -> Result<(), Failure> {
    let made = generate_simple_self_signed(args.host.clone());
    let CertifiedKey { cert, signing_key } =
        made.map_err(|error| Failure::usage(format!("--host {}: {error}", args.host.join(", "))))?;
    let dir = &args.dir;
    fs::create_dir_all(dir)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))?;
    let certificate = dir.join(CERTIFICATE_FILE);
    let files = [
        (dir.join(KEY_FILE), signing_key.serialize_pem()),
        (certificate.clone(), cert.pem()),
    ];
    write_all_private(&files)?;
    let shown = certificate.display();
    Output::default().note(&format!("made {shown}, and beside it {KEY_FILE}; its pin:"));
    print_pin(&certificate)
}

fn pin(args: &CertificatePinArgs) -> Result<(), Failure> {
    print_pin(&args.file)
}

fn print_pin(file: &Path) -> Result<(), Failure> {
    let pin = pin_of_file(file);
    let pin = pin.map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    output::line(&pin.to_string())
}
