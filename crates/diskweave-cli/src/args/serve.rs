//! Arguments of `serve`, named as those of `qemu-nbd` where it has the like.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::Image;
use crate::output::size;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) image: Image,
    /// Let clients read only, as is so anyway
    #[arg(short, long, conflicts_with = "writable")]
    read_only: bool,
    /// Let clients write
    #[arg(long, conflicts_with = "force_share")]
    pub(crate) writable: bool,
    /// The unix socket to make, for its owner alone
    #[arg(
        short = 'k',
        long,
        value_name = "PATH",
        conflicts_with_all = ["bind", "port"]
    )]
    pub(crate) socket: Option<PathBuf>,
    /// The address to listen at by TCP, where whoever reaches it is served; 127.0.0.1 if only a port
    /// is said
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
    /// The port to listen at by TCP; 10809 if only an address is said
    #[arg(short, long)]
    pub(crate) port: Option<u16>,
    /// Name of the export, which is what clients get that say none
    #[arg(short = 'x', long, default_value = "", value_name = "NAME")]
    pub(crate) export_name: String,
    /// Words for people who list exports
    #[arg(short = 'D', long, default_value = "", value_name = "TEXT")]
    pub(crate) description: String,
    /// The first byte of the disk that clients see
    #[arg(long, default_value = "0", value_name = "BYTES", value_parser = size::parse)]
    pub(crate) offset: u64,
    /// Talk within TLS only, as the server whose certificate and key are in DIR (server-cert.pem and
    /// server-key.pem), with clients who have a certificate signed by one in its ca-cert.pem
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: Option<PathBuf>,
    /// Serve clients that show no certificate, too
    #[arg(long, requires = "tls")]
    pub(crate) tls_any_client: bool,
    /// Return when clients are let in, and go on in the background
    #[arg(long)]
    pub(crate) fork: bool,
    /// The file to write the number of the process to that serves
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<String>,
    /// How many clients may be connected at once
    #[arg(short = 'e', long = "shared", default_value = "16", value_name = "N")]
    pub(crate) connections: NonZeroUsize,
    /// Go on when the last client has gone
    #[arg(short = 't', long)]
    pub(crate) persistent: bool,
}
