//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{bench::args::BenchCommand, output::Output};

/// Interledger in one binary: run a node, operate it, pay with it.
#[derive(Debug, Parser)]
#[command(
    name = "rialto",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  rialto demo
  rialto init alice --ilp-address test.alice && rialto run --config alice/rialto.toml

Exit codes: 0 done, 1 failed, 2 usage, 69 unavailable, 70 internal, 75 try again, 78 configuration."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per process, and it does not move"
)]
pub(crate) enum Command {
    /// Make the configuration and the secrets of a new node
    #[command(after_help = "\
Examples:
  rialto init
  rialto init /etc/rialto --name hub --ilp-address g.hub")]
    Init(InitArgs),

    /// Certificates for TLS between nodes, known by the pins of their keys
    #[command(subcommand)]
    Certificate(CertificateCommand),

    /// Run a node until SIGTERM or Ctrl-C; SIGHUP reloads the configuration
    #[command(after_help = "\
Examples:
  rialto run
  rialto run --config /etc/rialto/rialto.toml --set log.level=debug")]
    Run(RunArgs),

    /// Say what is wrong with a configuration, or with a data folder, touching nothing
    #[command(after_help = "\
Examples:
  rialto check --config /etc/rialto/rialto.toml && systemctl reload rialto
  rialto check --journal /var/lib/rialto

A data folder is read without its node, and may be while the node runs.")]
    Check(CheckArgs),

    /// Copies of a node's books
    #[command(subcommand)]
    Backup(BackupCommand),

    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Show how a running node is
    #[command(after_help = "\
Examples:
  rialto status
  rialto status --url http://127.0.0.1:7771 --json")]
    Status(NodeArgs),

    /// Accounts: everyone this node exchanges packets with
    #[command(subcommand)]
    Account(AccountCommand),

    /// Neighbours: invitations, and what is wrong with a peer
    #[command(subcommand)]
    Peer(PeerCommand),

    /// Static routes
    #[command(subcommand)]
    Route(RouteCommand),

    /// Exchange rates
    #[command(subcommand)]
    Rate(RateCommand),

    /// Who owes whom
    #[command(after_help = "\
Examples:
  rialto balance
  rialto balance bob --json")]
    Balance(BalanceArgs),

    /// Settle with an account now, over a channel or through its engine
    #[command(after_help = "\
Examples:
  rialto settle bob
  rialto settle bob 12.50 --idempotency-key 2026-11 --json

Without an amount it settles what the terms of the account say; `account show` has it as settleable.")]
    Settle(SettleArgs),

    /// Settlements: what was paid outside the node
    #[command(subcommand)]
    Settlement(SettlementCommand),

    /// Settlement channels with the holders of accounts
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Statements of accounts: made, shown, checked
    #[command(subcommand)]
    Statement(StatementCommand),

    /// Compare our statements of an account with the peer's
    #[command(after_help = "\
Examples:
  rialto reconcile bob.jsonl from-bob.jsonl
  rialto reconcile bob.jsonl from-bob.jsonl --json

Names the first difference, to the unit; the exit code is 0 only where both sides agree. No node is
needed.")]
    Reconcile(ReconcileArgs),

    /// Find out what a payment would deliver, without paying
    #[command(after_help = "\
Examples:
  rialto quote '$bob.example' 12.50
  rialto quote https://hub.example/bob --deliver 2000000 --from alice")]
    Quote(QuoteArgs),

    /// Pay a payment pointer
    #[command(after_help = "\
Examples:
  rialto pay '$bob.example' 12.50
  rialto pay https://hub.example/bob 12.50 --from alice --idempotency-key invoice-7 --json

Ctrl-C stops the payment and says what was delivered until then. The same command with the same
idempotency key never pays twice: it shows the payment that was made with the key.")]
    Pay(PayArgs),

    /// Measure the way to another node and back
    #[command(after_help = "\
Examples:
  rialto ping g.hub
  rialto ping g.hub --from alice --count 5")]
    Ping(PingArgs),

    /// Measure an Interledger endpoint
    #[command(subcommand)]
    Bench(BenchCommand),

    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  rialto completions bash > /etc/bash_completion.d/rialto
  rialto completions zsh > ~/.zfunc/_rialto")]
    Completions(CompletionsArgs),

    /// Print the manual page, or write those of all commands to a folder
    #[command(after_help = "\
Examples:
  rialto man | man -l -
  rialto man /usr/local/share/man/man1")]
    Man(ManArgs),

    /// Three nodes on this machine, and a payment through them across currencies
    #[command(after_help = "\
Examples:
  rialto demo
  rialto demo --amount 10000000 --packet-max 1000 --json")]
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Folder to make them in
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Name of the node, for people
    #[arg(long, default_value = "rialto")]
    pub(crate) name: String,
    /// ILP address of the node [default: test.NAME]
    #[arg(long)]
    pub(crate) ilp_address: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Make a key and a certificate for it that nobody else signs, and print the key's pin
    #[command(after_help = "\
Examples:
  rialto certificate make --host node.example
  rialto certificate make /etc/rialto --host node.example --host 192.0.2.7

It makes cert.pem and key.pem, and overwrites nothing. Peers who know the pin need no other proof.")]
    Make(CertificateMakeArgs),
    /// Print the pin of the key in a certificate, or of a public key: sha256:...
    #[command(after_help = "\
Examples:
  rialto certificate pin cert.pem
  rialto certificate pin bob.pem

A peer who shows a certificate with that key is known by it: rialto account add-token bob --client-pin sha256:...")]
    Pin(CertificatePinArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CertificateMakeArgs {
    /// Folder to make them in
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Name or address under which the node is reached; can be given several times
    #[arg(long, required = true)]
    pub(crate) host: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CertificatePinArgs {
    /// PEM file
    pub(crate) file: PathBuf,
}

/// Which configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file
    #[arg(long, env = "RIALTO_CONFIG", default_value = "rialto.toml")]
    pub(crate) config: PathBuf,
    /// Set a key over file and environment, such as node.listen=127.0.0.1:7770
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Exit as soon as stdin is closed: a node that must not outlive the process that started it
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Verify this data folder, or a backup, instead of the configuration, and print its books
    #[arg(long, value_name = "FOLDER")]
    pub(crate) journal: Option<PathBuf>,
    /// Also ask the running node for its peers, and whether each can be reached
    #[arg(long, conflicts_with = "journal")]
    pub(crate) online: bool,
    /// Print the books as JSON; amounts are whole numbers of the asset's smallest unit
    #[arg(long, requires = "journal")]
    pub(crate) json: bool,
    /// Print nothing on stderr but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Copy the books of a node, running or not, to a new folder, and verify the copy
    #[command(after_help = "\
Examples:
  rialto backup create /backup/rialto-2030-01-01
  rialto backup create /backup/today --config /etc/rialto/rialto.toml --json

Secrets and the configuration are not part of it: keep them apart.")]
    Create(BackupNodeArgs),
    /// Verify a backup, and print its books
    #[command(after_help = "\
Examples:
  rialto backup verify /backup/rialto-2030-01-01
  rialto backup verify /backup/today --json")]
    Verify(BackupVerifyArgs),
    /// Put a backup into the empty data folder of a node, and verify it there
    #[command(after_help = "\
Examples:
  rialto backup restore /backup/rialto-2030-01-01
  rialto backup restore /backup/today --config /etc/rialto/rialto.toml

What was paid after the backup is not in it, while neighbours remember: compare with them first.")]
    Restore(BackupNodeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BackupNodeArgs {
    /// Folder of the backup
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct BackupVerifyArgs {
    /// Folder of the backup
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the values in force
    #[command(after_help = "\
Examples:
  rialto config show
  rialto config show --origin --config /etc/rialto/rialto.toml")]
    Show(ConfigShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Say where each value comes from
    #[arg(long)]
    pub(crate) origin: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which node, and how to print. The token comes from RIALTO_TOKEN or a file, never from a flag.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Admin API of the node [default: of the node of --config, else http://127.0.0.1:7771]
    #[arg(long, env = "RIALTO_URL", help_heading = "Node")]
    pub(crate) url: Option<String>,
    /// File with the admin token, or - for stdin [default: RIALTO_TOKEN, else that of --config]
    #[arg(long, value_name = "FILE", help_heading = "Node")]
    pub(crate) token_file: Option<PathBuf>,
    /// Configuration of the node, when it runs on this machine [default: rialto.toml, if there]
    #[arg(
        long,
        env = "RIALTO_CONFIG",
        value_name = "FILE",
        help_heading = "Node"
    )]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// List all accounts
    #[command(after_help = "\
Examples:
  rialto account list
  rialto account list --json | jq -r '.accounts[].name'")]
    List(NodeArgs),
    /// Show everything about an account
    #[command(after_help = "\
Examples:
  rialto account show bob
  rialto account show bob --json")]
    Show(NamedArgs),
    /// Make an account
    #[command(after_help = "\
Examples:
  rialto account create alice --relation local --asset USD/9 --credit 100
  rialto account create hub --relation parent --asset USD/9 --credit 100 \\
      --btp-url btp+wss://hub.example/accounts/alice/ilp/btp --btp-token-file hub.token")]
    Create(AccountCreateArgs),
    /// Change an account; what is not named stays, `none` clears
    #[command(after_help = "\
Examples:
  rialto account update bob --credit 250 --packet-max none
  rialto account update bob --paused true")]
    Update(AccountUpdateArgs),
    /// Correct a balance by hand, against the node's own position
    #[command(after_help = "\
Examples:
  rialto account adjust bob 12.50 --reason 'wired to bob on 23 November'
  rialto account adjust bob -0.000000040 --reason 'not in the backup' --idempotency-key fix-1

A positive amount is what we owe them more, or what they owe us less; a negative one the other way \
round.")]
    Adjust(AdjustArgs),
    /// Delete an account whose balance is zero, and its routes
    #[command(after_help = "\
Examples:
  rialto account delete bob
  rialto account delete bob --quiet")]
    Delete(NamedArgs),
    /// Make another incoming token and let the older ones expire
    #[command(after_help = "\
Examples:
  rialto account rotate-token bob
  rialto account rotate-token bob --grace-seconds 3600 > bob.token")]
    RotateToken(RotateTokenArgs),
    /// Add an incoming token beside those that are there, or a key that verifies tokens
    #[command(after_help = "\
Examples:
  rialto account add-token bob > bob.token
  rialto account add-token bob --key-file bob.pem --jwt EdDSA --subject bob")]
    AddToken(AddTokenArgs),
    /// Remove an incoming token
    #[command(after_help = "\
Examples:
  rialto account remove-token bob 9f86d081
  rialto account remove-token bob 9f86d081 --json")]
    RemoveToken(RemoveTokenArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// Name of the account
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Profile {
    /// 150 packets a second at most, and no routes by CCP
    Rafiki,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Relation {
    /// Gives us our address; our default route
    Parent,
    /// An equal
    Peer,
    /// Gets its address from us
    Child,
    /// Has no node of its own: is paid and pays here
    Local,
}

impl Relation {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Peer => "peer",
            Self::Child => "child",
            Self::Local => "local",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AccountCreateArgs {
    /// Name of the account: A-Z, a-z, 0-9, _, ~ and -
    pub(crate) name: String,
    /// What its holder is to us
    #[arg(long, value_enum)]
    pub(crate) relation: Relation,
    /// What it is counted in: code and scale, such as USD/9
    #[arg(long)]
    pub(crate) asset: String,
    #[command(flatten)]
    pub(crate) settings: AccountSettingsArgs,
    /// File with the token its holder presents to us
    #[arg(long, value_name = "FILE", conflicts_with = "generate_token")]
    pub(crate) incoming_token_file: Option<PathBuf>,
    /// Make the token its holder presents to us, and print it
    #[arg(long)]
    pub(crate) generate_token: bool,
    /// Key of the client certificate its holder shows us, sha256:...; can be given several times
    #[arg(long, value_name = "PIN")]
    pub(crate) client_pin: Vec<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AdjustArgs {
    /// Name of the account
    pub(crate) name: String,
    /// What is added to its balance: a decimal of its asset, negative where it is taken from it
    #[arg(allow_negative_numbers = true)]
    pub(crate) amount: String,
    /// Why, for whoever reads the books later
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Name of this correction: with the same key it is made once [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AccountUpdateArgs {
    /// Name of the account
    pub(crate) name: String,
    /// What its holder is to us
    #[arg(long, value_enum)]
    pub(crate) relation: Option<Relation>,
    #[command(flatten)]
    pub(crate) settings: AccountSettingsArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What can be said at creation and changed later. Amounts are decimals of the account's asset.
#[derive(Debug, Args)]
pub(crate) struct AccountSettingsArgs {
    /// ILP address, where it is not our own with the name after it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ilp_address: Option<String>,
    /// Most that its holder may owe us
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) credit: Option<String>,
    /// Largest packet
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) packet_max: Option<String>,
    /// Packets per minute
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) packets_per_minute: Option<String>,
    /// Packets per second that are sent to it, where its node lets only so many through
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) packets_out_per_second: Option<String>,
    /// What its node is, where that asks for settings of its own
    #[arg(long, value_name = "NAME", help_heading = "Limits")]
    pub(crate) profile: Option<Profile>,
    /// Amount per minute
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) amount_per_minute: Option<String>,
    /// Packets in flight
    #[arg(long, value_name = "COUNT", help_heading = "Limits")]
    pub(crate) in_flight_count_max: Option<String>,
    /// Amount in flight
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) in_flight_amount_max: Option<String>,
    /// Amount not yet safe on disk: the most that a power failure can cost
    #[arg(long, value_name = "AMOUNT", help_heading = "Limits")]
    pub(crate) unsynced_amount_max: Option<String>,
    /// Part of each conversion that is kept, such as 0.002
    #[arg(long, value_name = "PART")]
    pub(crate) spread: Option<String>,
    /// Refuse its packets and send it none
    #[arg(long, value_name = "BOOL")]
    pub(crate) paused: Option<bool>,
    /// Tell it our routes when it asks: true or false [default of a new account: true]
    #[arg(long, value_name = "BOOL", help_heading = "Routes")]
    pub(crate) send_routes: Option<String>,
    /// Ask for its routes: true or false [default of a new account: true for a peer and the parent]
    #[arg(long, value_name = "BOOL", help_heading = "Routes")]
    pub(crate) receive_routes: Option<String>,
    /// Take only routes under these prefixes; none for all
    #[arg(long, value_name = "PREFIX,...", help_heading = "Routes")]
    pub(crate) route_prefixes: Option<String>,
    /// Most routes to take from it
    #[arg(long, value_name = "COUNT", help_heading = "Routes")]
    pub(crate) routes_max: Option<String>,
    /// Reach it by ILP over HTTP at this URL
    #[arg(long, value_name = "URL", help_heading = "Link")]
    pub(crate) http_url: Option<String>,
    /// Key that its server must have, sha256:..., instead of a certificate that the roots vouch for; can
    /// be given several times; none for no such key
    #[arg(long, value_name = "PIN", help_heading = "Link")]
    pub(crate) tls_pin: Vec<String>,
    /// File with the token to present there; none where our certificate is enough
    #[arg(
        long,
        value_name = "FILE",
        requires = "http_url",
        help_heading = "Link"
    )]
    pub(crate) http_token_file: Option<PathBuf>,
    /// Ask it to send answers in requests of its own, to this node's public URL
    #[arg(long, requires = "http_url", help_heading = "Link")]
    pub(crate) http_callback: bool,
    /// Make JSON Web Tokens instead, signed with the key in that file: a shared secret in base64, or an
    /// Ed25519 private key
    #[arg(long, value_name = "ALGORITHM", value_parser = ["HS256", "EdDSA"], requires_all = ["http_token_file", "http_jwt_subject"], help_heading = "Link")]
    pub(crate) http_jwt: Option<String>,
    /// What they say as `sub`
    #[arg(
        long,
        value_name = "SUBJECT",
        requires = "http_jwt",
        help_heading = "Link"
    )]
    pub(crate) http_jwt_subject: Option<String>,
    /// What they say as `iss`
    #[arg(
        long,
        value_name = "ISSUER",
        requires = "http_jwt",
        help_heading = "Link"
    )]
    pub(crate) http_jwt_issuer: Option<String>,
    /// What they say as `aud`
    #[arg(
        long,
        value_name = "AUDIENCE",
        requires = "http_jwt",
        help_heading = "Link"
    )]
    pub(crate) http_jwt_audience: Option<String>,
    /// Connect to it by BTP at this URL
    #[arg(long, value_name = "URL", help_heading = "Link")]
    pub(crate) btp_url: Option<String>,
    /// User name to present there
    #[arg(long, value_name = "NAME", requires = "btp_url", help_heading = "Link")]
    pub(crate) btp_username: Option<String>,
    /// File with the token to present there; none where our certificate is enough
    #[arg(long, value_name = "FILE", requires = "btp_url", help_heading = "Link")]
    pub(crate) btp_token_file: Option<PathBuf>,
    /// Make a JSON Web Token for each connection instead, signed with the key in that file
    #[arg(long, value_name = "ALGORITHM", value_parser = ["HS256", "EdDSA"], requires_all = ["btp_token_file", "btp_jwt_subject"], help_heading = "Link")]
    pub(crate) btp_jwt: Option<String>,
    /// What they say as `sub`
    #[arg(
        long,
        value_name = "SUBJECT",
        requires = "btp_jwt",
        help_heading = "Link"
    )]
    pub(crate) btp_jwt_subject: Option<String>,
    /// What they say as `iss`
    #[arg(
        long,
        value_name = "ISSUER",
        requires = "btp_jwt",
        help_heading = "Link"
    )]
    pub(crate) btp_jwt_issuer: Option<String>,
    /// What they say as `aud`
    #[arg(
        long,
        value_name = "AUDIENCE",
        requires = "btp_jwt",
        help_heading = "Link"
    )]
    pub(crate) btp_jwt_audience: Option<String>,
    /// Settle through the engine at this URL
    #[arg(long, value_name = "URL", help_heading = "Settlement")]
    pub(crate) engine_url: Option<String>,
    /// The engine has channels, as another Rialto node does: what the peer says of channels is for it
    #[arg(long, value_name = "true|false", help_heading = "Settlement")]
    pub(crate) engine_channels: Option<bool>,
    /// Settle as soon as we owe so much
    #[arg(long, value_name = "AMOUNT", help_heading = "Settlement")]
    pub(crate) settle_threshold: Option<String>,
    /// What we owe after a settlement; below zero it pays ahead
    #[arg(
        long,
        value_name = "AMOUNT",
        allow_hyphen_values = true,
        help_heading = "Settlement"
    )]
    pub(crate) settle_to: Option<String>,
    /// Settle so many seconds after the first packet since the last settlement
    #[arg(long, value_name = "SECONDS", help_heading = "Settlement")]
    pub(crate) settle_every: Option<String>,
    /// Least amount that is settled when its time has come
    #[arg(long, value_name = "AMOUNT", help_heading = "Settlement")]
    pub(crate) settle_amount_min: Option<String>,
    /// Accept channels of this kind, symmetrical or asymmetrical, and settle over them
    #[arg(long, value_name = "KIND", help_heading = "Settlement")]
    pub(crate) channel: Option<String>,
    /// The most that we may owe over a channel
    #[arg(
        long,
        value_name = "AMOUNT",
        requires = "channel",
        help_heading = "Settlement"
    )]
    pub(crate) channel_limit: Option<String>,
    /// The most that they may owe over a channel
    #[arg(
        long,
        value_name = "AMOUNT",
        requires = "channel",
        help_heading = "Settlement"
    )]
    pub(crate) channel_their_limit: Option<String>,
    /// Propose such a channel as soon as they are there
    #[arg(long, requires = "channel", help_heading = "Settlement")]
    pub(crate) channel_propose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AddTokenArgs {
    /// Name of the account
    pub(crate) name: String,
    /// File with the token, instead of one made by the node
    #[arg(long, value_name = "FILE")]
    pub(crate) incoming_token_file: Option<PathBuf>,
    /// Its holder makes JSON Web Tokens: how they are signed
    #[arg(long, value_name = "ALGORITHM", value_parser = ["HS256", "EdDSA", "RS256"], requires_all = ["key_file", "subject"])]
    pub(crate) jwt: Option<String>,
    /// File with the shared secret (base64) or the public key (PEM or base64) that verifies them
    #[arg(
        long,
        value_name = "FILE",
        requires = "jwt",
        conflicts_with = "incoming_token_file"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// What they must say as `sub`
    #[arg(long, requires = "jwt")]
    pub(crate) subject: Option<String>,
    /// What they must say as `iss`
    #[arg(long, requires = "jwt")]
    pub(crate) issuer: Option<String>,
    /// What they must say as `aud`
    #[arg(long, requires = "jwt")]
    pub(crate) audience: Option<String>,
    /// Instead of a token, the key of the client certificate its holder shows us: sha256:...
    #[arg(long, value_name = "PIN", conflicts_with_all = ["incoming_token_file", "jwt"])]
    pub(crate) client_pin: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveTokenArgs {
    /// Name of the account
    pub(crate) name: String,
    /// Of the token, as `account show` has it; or the pin
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RotateTokenArgs {
    /// Name of the account
    pub(crate) name: String,
    /// File with the new token, instead of one made by the node
    #[arg(long, value_name = "FILE")]
    pub(crate) incoming_token_file: Option<PathBuf>,
    /// How long the older tokens stay valid
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) grace_seconds: u32,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Offer an account to another node: prints an invite that can be accepted once
    #[command(after_help = "\
Examples:
  rialto peer invite --asset USD/9 --credit 1000
  rialto peer invite --for rafiki --asset USD/2 --credit 250 --name rafiki \\
      --ilp-address g.rafiki --http-url https://rafiki.example

The second makes the account, and prints the request that Rafiki's operator has to make. Whoever has the invite can accept it: send it as you would send a password.")]
    Invite(PeerInviteArgs),
    /// Accept an invite: both nodes end with an account for the other
    #[command(after_help = "\
Examples:
  rialto peer accept rialto_invite_AQcH...
  rialto peer accept - --credit 1000 --link http < invite

After a lost answer the same command finds the account that was made.")]
    Accept(PeerAcceptArgs),
    /// Peer with a Rafiki node by its auto-peering URL
    #[command(after_help = "\
Examples:
  rialto peer auto https://auto.rafiki.example --asset USD/2 --credit 250
  rialto peer auto https://auto.rafiki.example --asset USD/2 --name rafiki --json")]
    Auto(PeerAutoArgs),
    /// Go through everything between this node and a neighbour, and name what is wrong
    #[command(after_help = "\
Examples:
  rialto peer doctor bob
  rialto peer doctor bob --from alice --json

Exits with 0 only if nothing is wrong. The round trip costs one unit of the account that it is sent from.")]
    Doctor(PeerDoctorArgs),
    /// List the invites that this node made
    #[command(after_help = "\
Examples:
  rialto peer invites
  rialto peer invites --json")]
    Invites(NodeArgs),
    /// Revoke an invite; an account that came of it stays
    #[command(after_help = "\
Examples:
  rialto peer revoke 9f86d081884c7d65
  rialto peer revoke 9f86d081884c7d65 --quiet")]
    Revoke(PeerRevokeArgs),
    /// List callers whose token opens no account
    #[command(after_help = "\
Examples:
  rialto peer callers
  rialto peer callers --json

Tokens are not kept: a fingerprint is a part of the token's SHA-256.")]
    Callers(NodeArgs),
    /// Make a caller's token open an account: one that is there, or a new one
    #[command(after_help = "\
Examples:
  rialto peer adopt 9f86d081884c7d65 --name bob
  rialto peer adopt 9f86d081884c7d65 --name carol --asset USD/9 --credit 100 --ilp-address g.carol")]
    Adopt(PeerAdoptArgs),
    /// Hear no more of a caller; it is answered as before
    #[command(after_help = "\
Examples:
  rialto peer block 9f86d081884c7d65
  rialto peer block 9f86d081884c7d65 --quiet")]
    Block(PeerCallerArgs),
    /// Hear of a caller again
    #[command(after_help = "\
Examples:
  rialto peer unblock 9f86d081884c7d65
  rialto peer unblock 9f86d081884c7d65 --quiet")]
    Unblock(PeerCallerArgs),
    /// List requests to peer from nodes that nobody invited
    #[command(after_help = "\
Examples:
  rialto peer requests
  rialto peer requests --json

They come by Rafiki's auto-peering call, where auto_peering.path is set.")]
    Requests(NodeArgs),
    /// Approve a request to peer: its account is made when the asker calls again
    #[command(after_help = "\
Examples:
  rialto peer approve 9f86d081884c7d65
  rialto peer approve 9f86d081884c7d65 --credit 100 --name rafiki")]
    Approve(PeerApproveArgs),
    /// Deny a request to peer; the asker is not told
    #[command(after_help = "\
Examples:
  rialto peer deny 9f86d081884c7d65
  rialto peer deny 9f86d081884c7d65 --quiet")]
    Deny(PeerDenyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PeerAdoptArgs {
    /// Of the caller's token, as `peer callers` shows it
    pub(crate) fingerprint: String,
    /// The account that it opens from now on
    #[arg(long)]
    pub(crate) name: String,
    /// What a new account will be counted in: code and scale, such as USD/9
    #[arg(long)]
    pub(crate) asset: Option<String>,
    /// What the holder of a new account is to us [default: peer]
    #[arg(long, value_enum, requires = "asset")]
    pub(crate) relation: Option<Relation>,
    /// ILP address of the holder of a new account
    #[arg(long, value_name = "ADDRESS", requires = "asset")]
    pub(crate) ilp_address: Option<String>,
    /// Most that the holder of a new account may owe us
    #[arg(long, value_name = "AMOUNT", requires = "asset")]
    pub(crate) credit: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerCallerArgs {
    /// Of the caller's token, as `peer callers` shows it
    pub(crate) fingerprint: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerApproveArgs {
    /// Of the request, as `peer requests` shows it
    pub(crate) id: String,
    /// Most that its holder may owe us [default: nothing]
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) credit: Option<String>,
    /// Largest packet
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) packet_max: Option<String>,
    /// Name of the account [default: that of the asker]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerDenyArgs {
    /// Of the request, as `peer requests` shows it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerInviteArgs {
    /// What the account will be counted in: code and scale, such as USD/9
    #[arg(long)]
    pub(crate) asset: String,
    /// Most that its holder may owe us
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) credit: Option<String>,
    /// Largest packet
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) packet_max: Option<String>,
    /// Name of the account [default: that of the node that accepts]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Make the account at once, for a node that knows no invites, and print what its operator needs
    #[arg(
        long = "for",
        value_enum,
        requires = "ilp_address",
        requires = "http_url",
        requires = "name"
    )]
    pub(crate) software: Option<PeerSoftware>,
    /// The other node's ILP address
    #[arg(long, value_name = "ADDRESS", requires = "software")]
    pub(crate) ilp_address: Option<String>,
    /// Where the other node takes ILP over HTTP
    #[arg(long, value_name = "URL", requires = "software")]
    pub(crate) http_url: Option<String>,
    /// Do not exchange routes by CCP: they are set by hand
    #[arg(long)]
    pub(crate) no_routes: bool,
    /// How long it can be accepted: 90s, 30m, 24h or 7d, at most 30 days
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = seconds)]
    pub(crate) expires: u32,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PeerSoftware {
    /// Rafiki, by its GraphQL admin API
    Rafiki,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PeerLink {
    /// One connection from us to them, both ways
    Btp,
    /// Requests to each other: they have to reach our node listener
    Http,
}

#[derive(Debug, Args)]
pub(crate) struct PeerAcceptArgs {
    /// The invite, or - for stdin
    pub(crate) invite: String,
    /// Most that its maker may owe us
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) credit: Option<String>,
    /// Name of the account [default: that of the node that made the invite]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How packets are exchanged
    #[arg(long, value_enum, default_value = "btp")]
    pub(crate) link: PeerLink,
    /// Do not exchange routes by CCP: they are set by hand
    #[arg(long)]
    pub(crate) no_routes: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerAutoArgs {
    /// Where the Rafiki node takes auto-peering requests
    pub(crate) auto_url: String,
    /// What the account will be counted in: code and scale, such as USD/2
    #[arg(long)]
    pub(crate) asset: String,
    /// Most that its holder may owe us
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) credit: Option<String>,
    /// Largest packet
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) packet_max: Option<String>,
    /// Name of the account [default: that of the Rafiki node]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerDoctorArgs {
    /// Name of the account
    pub(crate) name: String,
    /// Local account that the round trip is sent from [default: any, with the same asset if there is one]
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeerRevokeArgs {
    /// Name of the invite, as `peer invites` shows it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// List all routes: static, of accounts, and learnt from peers
    #[command(after_help = "\
Examples:
  rialto route list
  rialto route list --all --json")]
    List(RouteListArgs),
    /// Say where packets for an address go, and why not elsewhere
    #[command(after_help = "\
Examples:
  rialto route explain g.far.away
  rialto route explain g.far.away 12.50 --from alice --json")]
    Explain(RouteExplainArgs),
    /// Show the last changes of routes
    #[command(after_help = "\
Examples:
  rialto route changes
  rialto route changes --json")]
    Changes(NodeArgs),
    /// Show how routes are exchanged with each peer
    #[command(after_help = "\
Examples:
  rialto route peers
  rialto route peers --json")]
    Peers(NodeArgs),
    /// Send what begins with a prefix to an account, or to several
    #[command(after_help = "\
Examples:
  rialto route set g.bob bob
  rialto route set g.far hub=3 mesh=1 reserve=0

Of several accounts each gets its share of the destinations; one with the weight 0 is a reserve. While an
account fails, its share goes to the others.")]
    Set(RouteSetArgs),
    /// Delete a static route
    #[command(after_help = "\
Examples:
  rialto route delete g.bob
  rialto route delete default")]
    Delete(RouteDeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RouteSetArgs {
    /// ILP address prefix, or `default` for everything
    pub(crate) prefix: String,
    /// Name of the account that is the next hop; several each with its weight: NAME=WEIGHT
    #[arg(required = true, value_name = "ACCOUNT")]
    pub(crate) accounts: Vec<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RouteListArgs {
    /// Also those that stand by
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RouteExplainArgs {
    /// ILP address
    pub(crate) address: String,
    /// Amount that is sent, in whole units of the asset of --from
    #[arg(requires = "from")]
    pub(crate) amount: Option<String>,
    /// Account that sends
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RouteDeleteArgs {
    /// ILP address prefix, or `default` for everything
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RateCommand {
    /// List all rates
    #[command(after_help = "\
Examples:
  rialto rate list
  rialto rate list --json")]
    List(NodeArgs),
    /// Set how much of one asset another is worth
    #[command(after_help = "\
Examples:
  rialto rate set USD EUR 0.92
  rialto rate set USD EUR 0.92 --spread 0.002 --valid-until 2030-01-01T00:00:00Z")]
    Set(RateSetArgs),
    /// Take a price that moved too far to be taken at once
    #[command(after_help = "Examples:
  rialto rate confirm EUR
  rialto rate confirm EUR --json")]
    Confirm(RateConfirmArgs),
    /// Delete a rate
    #[command(after_help = "\
Examples:
  rialto rate delete USD EUR
  rialto rate delete USD EUR --quiet")]
    Delete(RateDeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RateSetArgs {
    /// Asset code that is paid with
    pub(crate) from: String,
    /// Asset code that is bought
    pub(crate) to: String,
    /// Whole units of TO for one whole unit of FROM
    pub(crate) rate: String,
    /// Part that is kept, instead of the default one
    #[arg(long, value_name = "PART")]
    pub(crate) spread: Option<String>,
    /// Convert nothing at this rate from then on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) valid_until: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RateConfirmArgs {
    /// Asset code of the price, as `rate list` shows it
    pub(crate) code: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RateDeleteArgs {
    /// Asset code that is paid with
    pub(crate) from: String,
    /// Asset code that is bought
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StatementCommand {
    /// Close the period of an account: make, sign and print its statement
    #[command(after_help = "\
Examples:
  rialto statement close bob >> bob.jsonl
  rialto statement close bob --csv")]
    Close(StatementArgs),
    /// Print the statements of an account, oldest first
    #[command(after_help = "\
Examples:
  rialto statement show bob > bob.jsonl
  rialto statement show bob --csv")]
    Show(StatementArgs),
    /// Check statements without a node: signatures, sums, and that each continues the one before
    #[command(after_help = "\
Examples:
  rialto statement verify bob.jsonl
  rialto statement verify bob.jsonl --json")]
    Verify(StatementVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatementArgs {
    /// Name of the account
    pub(crate) account: String,
    /// Print a table of comma-separated values, without signatures
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatementVerifyArgs {
    /// File with one statement on each line
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Our statements, one on each line
    pub(crate) mine: PathBuf,
    /// The peer's
    pub(crate) theirs: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    /// Name of the account
    pub(crate) account: String,
    /// How much, as a decimal of the account's asset
    pub(crate) amount: Option<String>,
    /// The same key is the same settlement, however often it is sent; made where it is left out
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SettlementCommand {
    /// List outgoing settlements, or those by hand, newest first
    #[command(after_help = "\
Examples:
  rialto settlement list
  rialto settlement list --by-hand --json")]
    List(SettlementListArgs),
    /// Show a settlement
    #[command(after_help = "\
Examples:
  rialto settlement show 7
  rialto settlement show 8 --by-hand --json")]
    Show(SettlementShowArgs),
    /// Write down what was paid outside of the node, such as by a bank transfer
    #[command(after_help = "\
Examples:
  rialto settlement record bob 250.00 --direction received --reference 'SEPA 2026-11-03 4711'
  rialto settlement record bob 12.50 --direction paid --reference 'invoice 12' --json

It moves the balance at once or, where the node has settlement.second_approver, when another operator
approves it. The same reference, direction and amount are the same settlement.")]
    Record(SettlementRecordArgs),
    /// Approve a settlement that another operator wrote down: it moves the balance
    #[command(after_help = "\
Examples:
  rialto settlement approve 8
  rialto settlement approve 8 --json")]
    Approve(SettlementApproveArgs),
    /// Decline a settlement that waits to be approved
    #[command(after_help = "\
Examples:
  rialto settlement decline 8
  rialto settlement decline 8 --json")]
    Decline(SettlementArgs),
    /// Tell the engine, or the other side of the channel, once more of a settlement that was refused
    #[command(after_help = "\
Examples:
  rialto settlement retry 7
  rialto settlement retry 7 --json")]
    Retry(SettlementArgs),
    /// Take back a settlement that the engine refused: its amount is owed again
    #[command(after_help = "\
Examples:
  rialto settlement cancel 7
  rialto settlement cancel 7 --json")]
    Cancel(SettlementArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SettlementListArgs {
    /// Those that operators wrote down
    #[arg(long)]
    pub(crate) by_hand: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SettlementShowArgs {
    /// Number of the settlement
    pub(crate) id: u64,
    /// It is one that an operator wrote down
    #[arg(long)]
    pub(crate) by_hand: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SettlementRecordArgs {
    /// Name of the account
    pub(crate) account: String,
    /// How much, as a decimal of the account's asset
    pub(crate) amount: String,
    /// Who paid: the node (paid), or the holder of the account (received)
    #[arg(long, value_name = "DIRECTION", value_parser = ["paid", "received"])]
    pub(crate) direction: String,
    /// What names the transfer
    #[arg(long, value_name = "TEXT")]
    pub(crate) reference: String,
    /// The same key is the same settlement, however often it is sent; made where it is left out
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SettlementApproveArgs {
    /// Number of the settlement
    pub(crate) id: u64,
    /// The same key is the same approval, however often it is sent; made where it is left out
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SettlementArgs {
    /// Number of the settlement
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// Propose a channel to the holder of an account
    #[command(after_help = "\
Examples:
  rialto channel open bob --kind symmetrical --limit 100 --their-limit 50
  rialto channel open bob --kind asymmetrical --limit 100 --json

On an asymmetrical trustline the side with a limit keeps the ledger; the other holds an account on it.")]
    Open(ChannelOpenArgs),
    /// List channels, newest first
    #[command(after_help = "\
Examples:
  rialto channel list
  rialto channel list --account bob --json")]
    List(ChannelListArgs),
    /// Show a channel, or write what can be shown of it to others
    #[command(after_help = "\
Examples:
  rialto channel show 5c0f8a1e2b3d4c5f60718293a4b5c6d7
  rialto channel show 5c0f8a1e2b3d4c5f60718293a4b5c6d7 --statement bob.json")]
    Show(ChannelShowArgs),
    /// Accept a channel that was offered, or other limits of one
    #[command(after_help = "\
Examples:
  rialto channel accept 5c0f8a1e2b3d4c5f60718293a4b5c6d7
  rialto channel accept 5c0f8a1e2b3d4c5f60718293a4b5c6d7 --json")]
    Accept(ChannelArgs),
    /// Decline a channel that was offered, or other limits of one
    #[command(after_help = "\
Examples:
  rialto channel decline 5c0f8a1e2b3d4c5f60718293a4b5c6d7
  rialto channel decline 5c0f8a1e2b3d4c5f60718293a4b5c6d7 --reason 'at most 20 USD'")]
    Decline(ChannelDeclineArgs),
    /// Propose other limits of an open channel
    #[command(after_help = "\
Examples:
  rialto channel limits 5c0f8a1e2b3d4c5f60718293a4b5c6d7 --limit 200 --their-limit 50
  rialto channel limits 5c0f8a1e2b3d4c5f60718293a4b5c6d7 --limit 200 --their-limit 50 --json")]
    Limits(ChannelLimitsArgs),
    /// End a channel, in agreement or alone
    #[command(after_help = "\
Examples:
  rialto channel close 5c0f8a1e2b3d4c5f60718293a4b5c6d7
  rialto channel close 5c0f8a1e2b3d4c5f60718293a4b5c6d7 --alone")]
    Close(ChannelCloseArgs),
    /// Check a statement of a channel; needs no node
    #[command(after_help = "\
Examples:
  rialto channel verify bob.json
  rialto channel verify bob.json --json")]
    Verify(ChannelVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ChannelOpenArgs {
    /// Name of the account
    pub(crate) account: String,
    /// What kind of channel
    #[arg(long, value_name = "KIND", value_parser = ["symmetrical", "asymmetrical"])]
    pub(crate) kind: String,
    /// The most that we may owe over it, as a decimal of the account's asset
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    pub(crate) limit: String,
    /// The most that they may owe over it
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    pub(crate) their_limit: String,
    /// The same key is the same channel, however often it is sent; made where it is left out
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelListArgs {
    /// Only channels with this account
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    /// Number of the channel, as `channel list` shows it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelShowArgs {
    /// Number of the channel, as `channel list` shows it
    pub(crate) id: String,
    /// Write a signed statement of it to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) statement: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelDeclineArgs {
    /// Number of the channel, as `channel list` shows it
    pub(crate) id: String,
    /// For the other side
    #[arg(long, value_name = "TEXT", default_value = "declined by the operator")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelLimitsArgs {
    /// Number of the channel, as `channel list` shows it
    pub(crate) id: String,
    /// The most that we may owe over it, as a decimal of the account's asset
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) limit: String,
    /// The most that they may owe over it
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) their_limit: String,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelCloseArgs {
    /// Number of the channel, as `channel list` shows it
    pub(crate) id: String,
    /// At once, without waiting for the other side
    #[arg(long)]
    pub(crate) alone: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChannelVerifyArgs {
    /// File with the statement
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct BalanceArgs {
    /// Name of one account
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What would be paid to whom.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Payment pointer ($host/path) or URL of the receiver
    pub(crate) receiver: String,
    /// What leaves: a decimal of the paying account's asset, such as 12.50
    #[arg(required_unless_present = "deliver", conflicts_with = "deliver")]
    pub(crate) amount: Option<String>,
    /// What arrives, instead: whole units of the receiver's asset
    #[arg(long, value_name = "UNITS")]
    pub(crate) deliver: Option<u64>,
    /// Local account that pays [default: the only one]
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) from: Option<String>,
    /// Largest packet to send: a decimal of the paying account's asset
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) packet_max: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct QuoteArgs {
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PayArgs {
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
    /// How much worse than at the start the rate may get, such as 0.01
    #[arg(long, value_name = "PART", conflicts_with = "rate_min")]
    pub(crate) slippage: Option<String>,
    /// Least whole units that arrive for one whole unit sent
    #[arg(long, value_name = "RATE")]
    pub(crate) rate_min: Option<String>,
    /// Name of this payment: with the same key it is made once [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// ILP address of the node
    pub(crate) destination: String,
    /// Local account that sends it [default: the only one]
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) from: Option<String>,
    /// What each ping pays: a decimal of the account's asset
    #[arg(long, default_value = "0")]
    pub(crate) amount: String,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the manual pages of all commands
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What alice pays, in units of 0.000000001 USD
    #[arg(long, value_name = "UNITS", default_value_t = 1_000_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) amount: u64,
    /// Largest packet that alice sends, in the same units
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) packet_max: Option<u64>,
    /// Leave the nodes up until Ctrl-C, and print where they are
    #[arg(long)]
    pub(crate) keep: bool,
    /// Delay everything between hub and bob, each way
    #[arg(long, value_name = "MS", hide = true, default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub(crate) delay_ms: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| "must be written KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A time such as `30m`, in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let split = text.find(|character: char| !character.is_ascii_digit());
    let (count, unit) = text.split_at(split.unwrap_or(text.len()));
    let unit: Option<u32> = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(24 * 3_600),
        _ => None,
    };
    let seconds = unit.zip(count.parse().ok());
    let seconds = seconds.and_then(|(unit, count): (u32, u32)| unit.checked_mul(count));
    seconds.ok_or_else(|| "must be a number and s, m, h or d, such as 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Command as Definition, CommandFactory};

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_two_examples() {
        fn check(command: &Definition, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let mut below = command.get_subcommands().peekable();
            if below.peek().is_none() {
                let help = command.get_after_help().unwrap_or_default().to_string();
                let start = format!("  {}", path.trim());
                let examples = help.lines().filter(|line| line.starts_with(&start));
                assert_eq!(examples.count(), 2, "{path}");
            }
            below.for_each(|command| check(command, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn check(command: &Definition) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let takes_text = argument.get_action().takes_values();
                let secret = id.contains("token") || id.contains("secret");
                assert!(!(secret && takes_text) || id.ends_with("_file"), "{id}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
