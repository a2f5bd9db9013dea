//! Which node a client command speaks to, and with which token.

use std::{env, fs, path::Path};

use rialto_node::{
    ENDPOINTS_FILE, Endpoints,
    config::{self, Config},
};

use crate::{
    args::NodeArgs,
    client::Client,
    failure::{Exit, Failure},
    init::CONFIG_FILE,
    secret::Token,
};

/// Where a node listens unless it was configured otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:7771";

/// Flags go over the environment, and that over the node's own configuration.
pub(crate) fn connect(args: &NodeArgs) -> Result<Client, Failure> {
    let token = match (&args.token_file, env::var("RIALTO_TOKEN")) {
        (Some(path), _) => Some(Token::read(path)?),
        (None, Ok(token)) if !token.is_empty() => Some(Token::new(token)),
        (None, _) => None,
    };
    let config = match &args.config {
        Some(path) => Some(load(path)?),
        None if args.url.is_some() && token.is_some() => None,
        None if Path::new(CONFIG_FILE).exists() => Some(load(Path::new(CONFIG_FILE))?),
        None => None,
    };
    let url = match (&args.url, &config) {
        (Some(url), _) => url.clone(),
        (None, Some(config)) => admin_url(config),
        (None, None) => URL_DEFAULT.to_owned(),
    };
    let token = match (token, &config) {
        (None, Some(config)) => Some(Token::read(&config.admin.token_file)?),
        (token, _) => token,
    };
    Client::new(&url, token)
}

/// How a running node is reached, as it wrote it down itself.
pub(crate) fn endpoints(data_dir: &Path) -> Option<Endpoints> {
    let text = fs::read(data_dir.join(ENDPOINTS_FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn admin_url(config: &Config) -> String {
    let running = endpoints(&config.node.data_dir).map(|endpoints| endpoints.admin);
    format!("http://{}", running.unwrap_or(config.admin.listen))
}

fn load(path: &Path) -> Result<Config, Failure> {
    match config::load(path, &[]) {
        Ok(loaded) => Ok(loaded.config),
        Err(error) => Err(Failure::new(Exit::Config, error.to_string())),
    }
}
