//! The sockets that a server accepts connections from: a TCP address, a Unix socket's path, or a socket that another process
//! hands over.
//!
//! Without `unsafe`, std turns a `UnixStream` into its descriptor and a descriptor into a `TcpStream`. Reading, writing,
//! time-outs and shutting down are the same system calls for both, so the rest of the server knows one type of stream. Only
//! `accept` and addresses differ, and stay here.
//!
//! ```text
//!             address of a client   what ends a wait in accept
//! bind        its own               a connection to the listener's address
//! bind_unix   127.0.0.1:0           a connection to the path, or one second on Linux
//! from_stdin  as its family         as its family
//! ```
//!
//! std has no call that interrupts `accept`. A non-blocking listener would have to be polled, which costs time at each new
//! connection and wakes an idle machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;
#[cfg(unix)]
use std::{
    fs,
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process,
};

/// How long one attempt to wake a thread that accepts may take.
const WAKE_TIMEOUT: Duration = Duration::from_millis(50);

/// How often a thread that accepts from a Unix socket wakes by itself: another process may have taken over the path, so that
/// nobody can connect to this socket. Linux ends an `accept` by this time-out.
#[cfg(unix)]
const UNIX_ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The address that stands for the clients of a Unix socket.
#[cfg(unix)]
const UNIX_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A socket that clients connect to. The drop of a Unix socket removes the file that was made for it.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A socket with an IP address.
    Tcp(TcpListener),
    /// A socket with a path, and the file that [`bind_unix`](Listener::bind_unix) made for it; `None` where the socket was
    /// handed over, since its file belongs to another process.
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

/// Has one `accept` return, which std cannot interrupt, by a connection to the listener's own address.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

impl Listener {
    /// Listens on the first of the addresses that is possible. An error names all of them.
    pub(crate) fn bind(address: impl ToSocketAddrs) -> io::Result<Listener> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice()).map_err(|error| {
            let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            cannot_listen(&texts.join(", "), error)
        })?;
        Ok(Listener::Tcp(listener))
    }

    /// Listens on a path, in place of a socket there that no process serves any more. The new file takes the path in one step,
    /// with its mode, so a client never finds the path empty or open to all.
    ///
    /// ```text
    /// check the path ──▶ bind `path.PID` ──▶ set the mode ──▶ rename to `path`
    /// ```
    ///
    /// Where the mode or the rename fails, the drop of the [`SocketFile`] removes the hidden file.
    #[cfg(unix)]
    pub(crate) fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
        let bind = || {
            check_is_free(path)?;
            // Under another name first, so that nobody can connect before the mode is set.
            let mut hidden = path.as_os_str().to_owned();
            hidden.push(format!(".{}", process::id()));
            let hidden = PathBuf::from(hidden);
            let listener = UnixListener::bind(&hidden)?;
            let inode = inode(&hidden)?;
            let mut file = SocketFile {
                path: hidden,
                inode,
            };
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))?;
            fs::rename(&file.path, path)?;
            file.path = path.to_path_buf();
            Ok(Listener::Unix(listener, Some(file)))
        };
        bind().map_err(|error| cannot_listen(&path.display().to_string(), error))
    }

    /// Takes the listener that another process has handed over as standard input, such as systemd with `StandardInput=socket`.
    /// std has no type for a socket of either family: the address tells whether it is a TCP listener.
    #[cfg(unix)]
    pub(crate) fn from_stdin() -> io::Result<Listener> {
        let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
        // A listening socket is a socket that is not connected.
        let peer = TcpStream::from(descriptor.try_clone()?).peer_addr();
        if !peer.is_err_and(|error| error.kind() == ErrorKind::NotConnected) {
            let problem = io::Error::other("it is not a listening socket");
            return Err(cannot_listen("standard input", problem));
        }
        let tcp = TcpListener::from(descriptor.try_clone()?);
        Ok(match tcp.local_addr() {
            Ok(_) => Listener::Tcp(tcp),
            Err(_) => Listener::Unix(UnixListener::from(descriptor), None),
        })
    }

    /// Makes the listener blocking. Returns its address and a way to wake a thread that waits in `accept`.
    pub(crate) fn prepare(&self) -> io::Result<(SocketAddr, Waker)> {
        match self {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(false)?;
                let address = listener.local_addr()?;
                let own = reachable(address);
                let wake = move || drop(TcpStream::connect_timeout(&own, WAKE_TIMEOUT));
                Ok((address, Box::new(wake)))
            }
            #[cfg(unix)]
            Listener::Unix(listener, file) => {
                listener.set_nonblocking(false)?;
                let descriptor = OwnedFd::from(listener.try_clone()?);
                // Where a listener has no time-out, a connection to its path is the only way to wake it.
                let _ = TcpStream::from(descriptor).set_read_timeout(Some(UNIX_ACCEPT_TIMEOUT));
                let address = listener.local_addr()?;
                // The address still has the name that the file had first.
                let own = file.as_ref().map(|file| &*file.path);
                let path = own.or(address.as_pathname()).map(Path::to_path_buf);
                let wake = move || drop(path.as_ref().map(UnixStream::connect));
                Ok((UNIX_PEER, Box::new(wake)))
            }
        }
    }

    /// Waits for a connection. A connection from a Unix socket has the same type: the server's system calls on a stream work
    /// for both.
    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, mut peer) = listener.accept()?;
                // A socket for both families calls an IPv4 client ::ffff:192.0.2.1, which no list of proxies contains.
                peer.set_ip(peer.ip().to_canonical());
                Ok((stream, peer))
            }
            #[cfg(unix)]
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                Ok((TcpStream::from(OwnedFd::from(stream)), UNIX_PEER))
            }
        }
    }
}

/// A socket's file, removed on drop where no other server has put its own in its place.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Where the file is: under its first name until it has the name that clients know.
    path: PathBuf,
    /// Which file it is. A server that starts while this one runs may rename another file to the path.
    inode: (u64, u64),
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the device and the inode number of a file, which a rename leaves as they are. A symbolic link is not followed.
#[cfg(unix)]
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Checks that nothing is at a path but a socket that nobody serves. A file of the user's is never removed, and neither is the
/// socket of a server that runs. Of two servers that start at the same moment both may pass: the later rename wins, and the
/// other server leaves that file alone when it ends.
#[cfg(unix)]
fn check_is_free(path: &Path) -> io::Result<()> {
    let (kind, problem) = match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => (
            ErrorKind::AlreadyExists,
            "there is a file that is not a socket",
        ),
        Ok(_) if UnixStream::connect(path).is_ok() => {
            (ErrorKind::AddrInUse, "another process serves this socket")
        }
        // Where the path cannot be read, the bind fails too.
        _ => return Ok(()),
    };
    Err(io::Error::new(kind, problem))
}

/// Names the address or the path in an error of the system.
fn cannot_listen(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {what}: {error}"))
}

/// Returns the address as a client would use it: loopback for a wildcard. Not every system connects to `0.0.0.0` or `[::]`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_over_the_loopback_interface() {
        let check = |address: &str, expected: &str| {
            let address = reachable(address.parse().unwrap());
            assert_eq!(address.to_string(), expected);
        };
        check("0.0.0.0:8080", "127.0.0.1:8080"); // All addresses of IPv4.
        check("[::]:8080", "[::1]:8080"); // All addresses.
        check("192.0.2.1:8080", "192.0.2.1:8080"); // One address is reached as it is.
        check("[2001:db8::1]:8080", "[2001:db8::1]:8080");
    }
}
