//! `--help`.

/// What it can be asked for.
pub(super) fn text(name: &str) -> String {
    format!(
        "Usage: {name} [OPTIONS] FILE\n\
         Serves the disk in FILE to NBD clients, in place of QEMU's server\n\n\
         \x20 -h, --help                display this help and exit\n\
         \x20 -V, --version             output version information and exit\n\n\
         Connection properties:\n\
         \x20 -p, --port=PORT           port to listen on (default `10809')\n\
         \x20 -b, --bind=IFACE          interface to bind to (default `0.0.0.0')\n\
         \x20 -k, --socket=PATH         path to the unix socket\n\
         \x20 -e, --shared=NUM          serve NUM clients at once, 0 for any number (default '1')\n\
         \x20 -t, --persistent          don't exit on the last connection\n\
         \x20 -x, --export-name=NAME    expose export by name (default is empty string)\n\
         \x20 -D, --description=TEXT    export a human-readable description\n\
         \x20     --handshake-limit=N   limit client's handshake to N seconds (default 10)\n\n\
         Exposing part of the image:\n\
         \x20 -o, --offset=OFFSET       offset into the image\n\
         \x20 -A, --allocation-depth    expose the allocation depth\n\n\
         General purpose options:\n\
         \x20 -L, --list                list exports available from another NBD server\n\
         \x20     --object tls-creds-x509,id=ID,dir=DIR,endpoint=server[,verify-peer=off]\n\
         \x20                           certificates for TLS\n\
         \x20     --tls-creds=ID        use an earlier --object to provide TLS\n\
         \x20     --tls-hostname=NAME   what the other server's certificate has to say (with -L)\n\
         \x20     --fork                go on in the background once clients are let in\n\
         \x20     --pid-file=PATH       store the server's process ID in the given file\n\n\
         Block device options:\n\
         \x20 -f, --format=FORMAT       set image format (raw, qcow2, vhdx)\n\
         \x20 -r, --read-only           export read-only\n\
         \x20 -s, --snapshot            write to a temporary file over FILE\n\
         \x20 -l, --load-snapshot=SNAPSHOT_PARAM\n\
         \x20                           serve an internal snapshot of FILE, read-only\n\
         \x20 -n, --nocache, --aio=MODE accepted, and of no effect\n\
         \x20     --cache=MODE          'writethrough' and 'directsync' flush every write\n\
         \x20     --discard=MODE        set discard mode (ignore, unmap)\n\
         \x20     --detect-zeroes=MODE  set detect-zeroes mode (off, on, unmap)\n\
         \x20     --image-opts          treat FILE as a full set of image options\n"
    )
}
