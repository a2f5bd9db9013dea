//! The tutorial of the book, and its page on authentication, run as they stand: every shell block, in
//! order, with the program itself.
//! Only the ports are others, which the system picks.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod book;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use book::{blocks, squeezed};

const TUTORIAL: &str = include_str!("../../../docs/peer-two-nodes.md");
const AUTHENTICATION: &str = include_str!("../../../docs/operate/authentication.md");

/// The nodes that the blocks leave running, and the shell: one group of processes.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
    }
}

/// Another free port for each `127.0.0.1:NNNN`.
fn with_free_ports(script: &str) -> String {
    let parts: Vec<&str> = script.split("127.0.0.1:").collect();
    let mut held = BTreeMap::new();
    let mut replaced = parts[0].to_owned();
    for part in &parts[1..] {
        let (port, rest) = part.split_at(4);
        let listener = held
            .entry(port)
            .or_insert_with(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        replaced.push_str(&format!("{address}{rest}"));
    }
    replaced
}

/// Runs the shell blocks of a page in an empty folder; what they print. The nodes that the first block
/// starts listen where their configuration says.
fn run(blocks_sh: &[&str], logs: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("set -eu\n{}", blocks_sh.join("\n")).replace(
        "rialto init alice --name alice",
        "rialto init alice --name alice\nsed -i 's/:777[01]\"/:0\"/' alice/rialto.toml",
    );
    let program = Path::new(env!("CARGO_BIN_EXE_rialto"));
    let mut path = program.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap());
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(with_free_ports(&script))
        .env("PATH", path)
        .current_dir(folder.path());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("RIALTO_") {
            command.env_remove(name);
        }
    }
    // Files, since the nodes keep what they were given open.
    let file = |name: &str| folder.path().join(name);
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(File::create(file("stdout")).unwrap())
        .stderr(File::create(file("stderr")).unwrap());
    let mut shell = Group(command.spawn().unwrap());
    let status = shell.0.wait().unwrap();
    let read = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    let stderr = read("stderr");
    let logs: Vec<_> = logs
        .iter()
        .map(|name| read(&format!("{name}.log")))
        .collect();
    assert!(status.success(), "{stderr}\n{}", logs.join("\n"));
    (squeezed(&read("stdout")).join("\n"), stderr)
}

#[test]
fn the_blocks_of_the_tutorial_end_as_it_says() {
    let blocks_sh = blocks(TUTORIAL, "sh");
    assert_eq!(blocks_sh.len(), 3);
    let (printed, stderr) = run(&blocks_sh, &["alice", "bob", "carol", "dave", "erin"]);
    let end = squeezed(blocks(TUTORIAL, "text")[0]).join("\n");
    assert!(printed.contains(&end), "{printed}\n{stderr}");
    assert!(printed.contains("test.bob answered in "), "{printed}");
    // By way of bob, and nobody set a route.
    assert!(
        printed.contains("test.carol bob learnt test.bob taken"),
        "{printed}"
    );
    assert!(printed.contains("0.50 USD arrived"), "{printed}");
    assert!(printed.contains("we owe dave 1.25 USD"), "{printed}");
    println!(
        "reliability: tutorial | {} shell blocks of docs/peer-two-nodes.md run as they stand | 3 payments, one of them over a learnt route",
        blocks_sh.len()
    );
}

#[test]
fn the_blocks_about_certificates_work() {
    let blocks_sh = blocks(AUTHENTICATION, "sh");
    assert_eq!(blocks_sh.len(), 2);
    let (printed, stderr) = run(&blocks_sh, &["alice", "bob"]);
    let pings = printed.matches("test.bob answered in ").count();
    assert_eq!(pings, 2, "{printed}\n{stderr}");
}
