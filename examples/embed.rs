//! Embeds a tracker in another program: serves UDP and HTTP on free ports for ten seconds.

use std::time::Duration;

use scion_tracker::config::Listen;
use scion_tracker::{Config, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen = Listen::none();
    config.listen.udp = vec!["127.0.0.1:0".parse()?];
    config.listen.http = vec!["127.0.0.1:0".parse()?];
    let server = Server::bind(config)?;
    for listening in server.listeners() {
        eprintln!("announce to {}", listening.url());
    }
    let handle = server.handle();
    server
        .run(tokio::time::sleep(Duration::from_secs(10)))
        .await?;
    eprintln!("{} torrents", handle.stats().registry.torrents);
    Ok(())
}
