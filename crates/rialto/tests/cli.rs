//! What operators see of the program: help, errors, exit codes, and a node that is operated with it.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

fn rialto(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command.current_dir(folder).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RIALTO_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    rialto(folder, arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A folder with a new node's files in it, whose listeners take any free port.
fn node_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        run(folder.path(), &["init", "--name", "alice"])
            .status
            .success()
    );
    let path = folder.path().join("rialto.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        config.replace(":7770\"", ":0\"").replace(":7771\"", ":0\""),
    )
    .unwrap();
    folder
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn help_is_as_checked_in() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (vec!["--help"], include_str!("help/rialto.txt")),
        (vec!["pay", "--help"], include_str!("help/rialto-pay.txt")),
    ] {
        let output = run(folder.path(), &arguments);
        assert!(output.status.success());
        assert_eq!(stdout(&output), expected, "{arguments:?}");
    }
}

#[test]
fn a_certificate_is_made_once_and_its_pin_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let make = [
        "certificate",
        "make",
        "new",
        "--host",
        "node.example",
        "--host",
        "::1",
    ];
    let made = run(folder.path(), &make);
    assert!(made.status.success(), "{}", stderr(&made));
    let pin = stdout(&made);
    assert!(pin.starts_with("sha256:") && pin.len() == 72, "{pin}");
    let of_file = run(folder.path(), &["certificate", "pin", "new/cert.pem"]);
    assert_eq!(stdout(&of_file), pin);
    let again = run(folder.path(), &make);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("never overwritten"),
        "{}",
        stderr(&again)
    );
    let of_key = run(folder.path(), &["certificate", "pin", "new/key.pem"]);
    assert_eq!(of_key.status.code(), Some(78));
    assert!(
        stderr(&of_key).contains("new/key.pem"),
        "{}",
        stderr(&of_key)
    );
}

#[test]
fn mistakes_have_their_exit_code_and_their_words() {
    let folder = node_folder();
    let bad = "[node]\nilp_address = \"test.a\"\nlisen = \"127.0.0.1:0\"\n";
    fs::write(folder.path().join("bad.toml"), bad).unwrap();
    // Nobody listens where somebody has just stopped to.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = format!("http://{gone}");

    for (arguments, code, words) in [
        (vec![], 2, "Usage: rialto"),
        (vec!["fly"], 2, "unrecognized subcommand 'fly'"),
        (vec!["pay", "$bob.example"], 2, "required"),
        (
            vec![
                "account",
                "create",
                "bob",
                "--relation",
                "friend",
                "--asset",
                "USD/9",
            ],
            2,
            "parent, peer, child, local",
        ),
        (
            vec![
                "account",
                "create",
                "bob",
                "--relation",
                "peer",
                "--asset",
                "USD",
            ],
            2,
            "--asset 'USD'",
        ),
        (vec!["status", "--url", "https://node"], 2, "is https"),
        (
            vec!["init", "new", "--ilp-address", "not an address"],
            2,
            "ILP address 'not an address'",
        ),
        (
            vec!["init"],
            1,
            "secret.key exists already and is never overwritten",
        ),
        (vec!["status", "--url", &gone], 69, "does not answer"),
        (
            vec!["check", "--config", "missing.toml"],
            78,
            "cannot read configuration missing.toml",
        ),
        (
            vec!["check", "--config", "bad.toml"],
            78,
            "bad.toml:3:1: unknown key `lisen`, did you mean `listen`?",
        ),
        (vec!["check", "--set", "node.threads=0"], 78, "node.threads"),
        (
            vec!["status", "--token-file", "missing.token"],
            78,
            "missing.token",
        ),
    ] {
        let output = run(folder.path(), &arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn init_makes_a_good_configuration_and_private_secrets() {
    let folder = node_folder();
    for name in ["rialto.toml", "secret.key", "admin.token"] {
        let mode = fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let output = run(folder.path(), &["check"]);
    assert_eq!(stderr(&output), "rialto.toml is good\n");
    assert!(output.status.success());

    set_mode(&folder.path().join("admin.token"), 0o644);
    let output = run(folder.path(), &["check", "--quiet"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("admin.token can be read by others"));
}

#[test]
fn config_show_says_where_values_come_from() {
    let folder = node_folder();
    let output = rialto(
        folder.path(),
        &["config", "show", "--origin", "--set", "log.level=warn"],
    )
    .env("RIALTO_NODE__THREADS", "2")
    .output()
    .unwrap();
    let shown = stdout(&output);
    for line in [
        "admin.listen = 127.0.0.1:0  (file rialto.toml)",
        "log.level = warn  (flag)",
        "node.max_hold_ms = 30000  (default)",
        "node.threads = 2  (environment RIALTO_NODE__THREADS)",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} in {shown}"
        );
    }
}

#[test]
fn completions_and_manual_pages_cover_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["completions", "bash"]);
    assert!(stdout(&output).contains("rotate-token"));
    let output = run(folder.path(), &["man"]);
    assert!(stdout(&output).contains(".TH rialto 1"));
    assert!(run(folder.path(), &["man", "pages"]).status.success());
    assert!(folder.path().join("pages/rialto-account-create.1").exists());
}

/// A node in a process of its own, ended with this value.
struct Node {
    child: Child,
    _log: BufReader<ChildStderr>,
}

impl Node {
    /// Returns when it has said that it is ready.
    fn start(folder: &Path) -> Self {
        let mut child = rialto(
            folder,
            &["run", "--until-stdin-closes", "--set", "log.format=json"],
        )
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(r#""ready""#) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the node stopped");
        }
        Self { child, _log: log }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_node_is_operated_by_whoever_can_read_its_configuration() {
    let folder = node_folder();
    let _node = Node::start(folder.path());
    // No URL and no token: the ports that the system picked and the secret come from its files.
    let done = |line: &str| {
        let output = run(folder.path(), &line.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        output
    };

    let output = done("account create alice --relation local --asset USD/9 --credit 12.5");
    assert_eq!(
        (stdout(&output), stderr(&output)),
        ("", "account alice created\n")
    );
    let output = done("balance");
    assert_eq!(
        stdout(&output),
        concat!(
            " ACCOUNT         WHO OWES WHOM\n",
            " alice           even\n",
            " exchange:USD/9  our position is flat\n",
        )
    );
    assert_eq!(stdout(&done("balance alice")), "even\n");
    let [all, alice]: [Value; 2] = ["balance --json", "balance alice --json"]
        .map(|line| serde_json::from_slice(&done(line).stdout).unwrap());
    assert_eq!(all["balances"], json!([alice]));
    assert_eq!(alice["available"], "12500000000");
    let output = run(folder.path(), &["balance", "bob"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no account 'bob'"));

    let output = done("account create hub --relation peer --asset USD/9 --generate-token --quiet");
    assert!(
        stdout(&output).starts_with("rialto_"),
        "{}",
        stdout(&output)
    );
    assert_eq!(stderr(&output), "");

    done("account update alice --credit none --paused true");
    let shown: Value = serde_json::from_slice(&done("account show alice --json").stdout).unwrap();
    assert_eq!(shown["limits"]["balance_min"], "0");
    assert_eq!(shown["paused"], true);

    done("route set default hub");
    done("rate set USD EUR 0.92 --spread 0.002");
    let shown = done("route list");
    assert!(stdout(&shown).contains("default") && stdout(&shown).contains("static"));
    let shown: Value = serde_json::from_slice(&done("rate list --json").stdout).unwrap();
    assert_eq!(shown["rates"][0]["rate"], "0.92");

    // Where a packet would go, and what would become of its amount.
    done("account create paris --relation peer --asset EUR/6");
    done("route set test.paris paris");
    let explain = "route explain test.paris.x 12.50 --from alice";
    let shown = done(explain);
    let shown = stdout(&shown);
    let (table, conversion) = shown.split_once("rate  ").unwrap();
    let rows: Vec<Vec<_>> = table
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["PREFIX", "ACCOUNT", "SOURCE", "PATH", "WHY"]);
    assert_eq!(rows[1], ["test.paris", "paris", "static", "taken"]);
    assert_eq!(rows[2][..3], ["default", "hub", "static"]);
    assert!(
        table.contains("another prefix fits more of the destination"),
        "{table}"
    );
    assert_eq!(
        conversion,
        "    1 USD = 0.92 EUR\nspread    0.002\ndelivers  11.477 EUR to the next hop\n"
    );
    let shown: Value = serde_json::from_slice(&done(&format!("{explain} --json")).stdout).unwrap();
    assert_eq!(shown["conversion"]["amount_out"], "11477000");
    done("account create london --relation local --asset GBP/2");
    let shown = done("route explain test.paris.x 1 --from london");
    assert!(
        stdout(&shown).ends_with("nothing can be converted: fx.no_rate\n"),
        "{}",
        stdout(&shown)
    );
    done("account delete london");
    let shown = done("route changes");
    let mut changes = stdout(&shown).lines();
    let change = changes.find(|row| row.contains("test.paris")).unwrap();
    let change: Vec<_> = change.split_whitespace().collect();
    assert_eq!(change[1..], ["test.paris", "none", "paris", "(static)"]);
    let shown = done("route peers");
    let peers: Vec<Vec<_>> = { stdout(&shown).lines() }
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(
        peers[0],
        ["ACCOUNT", "THEIRS", "LEARNT", "OURS", "TROUBLES"]
    );
    assert_eq!(peers[1], ["hub", "off", "0", "of", "10000", "not", "asked"]);
    done("route delete test.paris");
    done("account delete paris");

    for line in [
        "route delete default",
        "rate delete USD EUR",
        "account delete hub",
    ] {
        done(line);
        let output = run(folder.path(), &line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(1), "{line} twice");
    }

    let mut command = rialto(folder.path(), &["status"]);
    let output = command
        .env("RIALTO_TOKEN", "rialto_of_a_stranger")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
}

#[test]
fn a_payment_that_cannot_be_made_says_so() {
    let folder = node_folder();
    let _node = Node::start(folder.path());
    let create = "account create alice --relation local --asset USD/9 --credit 1";
    assert!(
        run(folder.path(), &create.split(' ').collect::<Vec<_>>())
            .status
            .success()
    );

    // Plain http is for development, and this node is not configured for that.
    let output = run(folder.path(), &["pay", "http://127.0.0.1:1/bob", "0.5"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("until then 0.00 USD left"),
        "{}",
        stderr(&output)
    );
    let output = run(folder.path(), &["pay", "$bob.example", "0.0000000001"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("at most 9 digits"),
        "{}",
        stderr(&output)
    );
}
