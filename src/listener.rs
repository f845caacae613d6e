//! The sockets that a server accepts connections from: a TCP address, a Unix socket's path, or what another process hands
//! over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;
#[cfg(unix)]
use std::{
    fs,
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

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, Option<SocketFile>),
}

/// A way to have `accept` return, which std cannot interrupt: a connection to the listener's own address.
#[derive(Clone, Debug)]
pub(crate) enum Waker {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(Option<PathBuf>),
}

impl Listener {
    pub(crate) fn bind(address: impl ToSocketAddrs) -> io::Result<Listener> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        let listener = TcpListener::bind(addresses.as_slice()).map_err(|error| {
            let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            cannot_listen(&texts.join(", "), error)
        })?;
        Ok(Listener::Tcp(listener))
    }

    /// Listens on a path, in place of a socket there that nobody serves any more.
    #[cfg(unix)]
    pub(crate) fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
        let bind = || {
            check_is_free(path)?;
            // Under another name first, so that nobody can connect before the mode is set.
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}", process::id()));
            let hidden = PathBuf::from(name);
            let listener = UnixListener::bind(&hidden)?;
            let placed = fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))
                .and_then(|()| fs::rename(&hidden, path));
            if let Err(error) = placed {
                let _ = fs::remove_file(&hidden);
                return Err(error);
            }
            let file = SocketFile {
                path: path.to_path_buf(),
                inode: inode(path),
            };
            Ok(Listener::Unix(listener, Some(file)))
        };
        bind().map_err(|error| cannot_listen(&path.display().to_string(), error))
    }

    /// Takes the listener that another process has handed over as standard input.
    #[cfg(unix)]
    pub(crate) fn from_stdin() -> io::Result<Listener> {
        let descriptor = io::stdin().as_fd().try_clone_to_owned()?;
        let is_connected = TcpStream::from(descriptor.try_clone()?).peer_addr().is_ok()
            || UnixStream::from(descriptor.try_clone()?)
                .peer_addr()
                .is_ok();
        if is_connected {
            let problem = io::Error::other("it is a connection, not a listener");
            return Err(cannot_listen("standard input", problem));
        }
        let tcp = TcpListener::from(descriptor.try_clone()?);
        if tcp.local_addr().is_ok() {
            return Ok(Listener::Tcp(tcp));
        }
        let unix = UnixListener::from(descriptor);
        match unix.local_addr() {
            Ok(_) => Ok(Listener::Unix(unix, None)),
            Err(error) => Err(cannot_listen("standard input", error)),
        }
    }

    /// Makes `accept` wait, returns the listener's address, and a way to wake those that wait.
    pub(crate) fn prepare(&self) -> io::Result<(SocketAddr, Waker)> {
        match self {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(false)?;
                let address = listener.local_addr()?;
                Ok((address, Waker::Tcp(reachable(address))))
            }
            #[cfg(unix)]
            Listener::Unix(listener, _) => {
                listener.set_nonblocking(false)?;
                let descriptor = OwnedFd::from(listener.try_clone()?);
                // Where a listener has no time-out, a connection to its path is the only way to wake it.
                let _ = TcpStream::from(descriptor).set_read_timeout(Some(UNIX_ACCEPT_TIMEOUT));
                let path = listener.local_addr()?.as_pathname().map(Path::to_path_buf);
                let path = match self {
                    Listener::Unix(_, Some(file)) => Some(file.path.clone()),
                    _ => path,
                };
                Ok((UNIX_PEER, Waker::Unix(path)))
            }
        }
    }

    /// Waits for a connection. One from a Unix socket is carried by the same type: what the server asks of a stream, the
    /// system does for both.
    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, mut peer) = listener.accept()?;
                // A socket for both families calls an IPv4 client ::ffff:192.0.2.1, which no list of proxies does.
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

impl Waker {
    pub(crate) fn wake(&self) {
        match self {
            Waker::Tcp(address) => drop(TcpStream::connect_timeout(address, WAKE_TIMEOUT)),
            #[cfg(unix)]
            Waker::Unix(path) => drop(path.as_ref().map(UnixStream::connect)),
        }
    }
}

/// A socket's file, removed on drop where no other server has put its own in its place.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Checks that nothing is at a path but a socket that nobody serves.
#[cfg(unix)]
fn check_is_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let problem = "there is a file that is not a socket";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, problem))
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            let problem = "another process serves this socket";
            Err(io::Error::new(io::ErrorKind::AddrInUse, problem))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn cannot_listen(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {what}: {error}"))
}

/// The address as a client would use it: loopback for a wildcard.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
