//! The log: pretty on a terminal, JSON otherwise, always on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload};

use crate::config::{LogConfig, LogFormat};

/// Changes the level of a running node.
pub(crate) type LevelHandle = reload::Handle<EnvFilter, Registry>;

/// Starts to log. A second node in one process keeps the first one's log.
pub(crate) fn start(config: &LogConfig) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let pretty = match config.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let _ = if pretty {
        let layer = fmt::layer().with_writer(stderr).with_target(false);
        tracing::subscriber::set_global_default(registry.with(layer))
    } else {
        let layer = fmt::layer().json().flatten_event(true).with_writer(stderr);
        tracing::subscriber::set_global_default(registry.with(layer))
    };
    Ok(handle)
}

/// HTTP/2 would warn of single frames: strangers could fill the log with them. A level that names the
/// library, such as `info,h2=debug`, says otherwise.
const QUIET: &str = "h2=error";

/// What a level in the configuration means.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{level}"))
        .map_err(|error| format!("log.level '{level}': {error}"))
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_level_that_names_a_library_is_what_counts_for_it() {
        let plain = filter("info").expect("a level").to_string();
        assert!(
            plain.contains("h2=error") && plain.contains("info"),
            "{plain}"
        );
        let named = filter("info,h2=debug").expect("levels").to_string();
        assert!(
            named.contains("h2=debug") && !named.contains("h2=error"),
            "{named}"
        );
        let refused = filter("x=y=z").expect_err("no level");
        assert!(refused.starts_with("log.level 'x=y=z'"), "{refused}");
    }
}
