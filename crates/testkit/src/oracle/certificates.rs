//! GnuTLS's `certtool`: certificates as QEMU and libnbd want them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{find, run};

/// `certtool`.
#[derive(Debug, Clone)]
pub struct Certtool(PathBuf);

/// What each certificate is for, as its template says.
const CA: &str = "cn = authority\nca\ncert_signing_key\nencryption_key\nexpiration_days = 30\n";
const SERVER: &str = "cn = server\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\n\
                      signing_key\nencryption_key\nexpiration_days = 30\n";
const CLIENT: &str =
    "cn = client\ntls_www_client\nsigning_key\nencryption_key\nexpiration_days = 30\n";

impl Certtool {
    /// The tool of this machine.
    #[must_use]
    pub fn find() -> Option<Self> {
        find(&["certtool"], "gnutls-bin").map(Self)
    }

    /// Makes `dir` with an authority of its own, and a server and a client whom it has signed: the files
    /// `{ca,server,client}-{cert,key}.pem`. The server is called `localhost` and 127.0.0.1.
    ///
    /// # Panics
    /// When it does not.
    pub fn make(&self, dir: &Path) {
        fs::create_dir(dir).expect("a new directory");
        for (who, template) in [("ca", CA), ("server", SERVER), ("client", CLIENT)] {
            let name = |what: &str| dir.join(format!("{who}-{what}"));
            fs::write(name("template"), template).expect("a new file");
            // By elliptic curves, every other key of certtool 3.7 has a byte too many.
            let key = ["--generate-privkey", "--key-type=rsa", "--bits=2048"];
            self.run(&name("key.pem"), dir, &key, &[]);
            let signer: &[(&str, &str)] = match who {
                "ca" => &[],
                _ => &[
                    ("--load-ca-certificate", "ca-cert.pem"),
                    ("--load-ca-privkey", "ca-key.pem"),
                ],
            };
            let signing = match who {
                "ca" => "--generate-self-signed",
                _ => "--generate-certificate",
            };
            let (key, template) = (format!("{who}-key.pem"), format!("{who}-template"));
            let mut files = vec![("--load-privkey", &*key), ("--template", &*template)];
            files.extend(signer);
            self.run(&name("cert.pem"), dir, &[signing], &files);
        }
    }

    fn run(&self, out: &Path, dir: &Path, args: &[&str], files: &[(&str, &str)]) {
        let mut command = Command::new(&self.0);
        command.current_dir(dir).args(args);
        command.arg("--outfile").arg(out);
        for (option, file) in files {
            command.args([option, file]);
        }
        run(&mut command).ok().expect("certtool works");
    }
}
