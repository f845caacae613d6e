//! Client sockets from many loopback addresses, so that closed ones in TIME_WAIT do not use up the ports.

use std::{
    io::{self, ErrorKind, Read},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
};

use socket2::{Domain, Socket, Type};

/// A small receive buffer, as a distant reader has at first: what loopback gives hides a stalled one for megabytes.
const SMALL_RECEIVE_BUFFER: usize = 32 * 1024;

/// What a connect that goes on in the background returns on Linux; std has no stable name for it.
const EINPROGRESS: i32 = 115;

pub fn server(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Connects without waiting: the socket becomes writable once it is connected.
pub fn connect(port: u16) -> io::Result<mio::net::TcpStream> {
    let socket = local_socket()?;
    socket.set_nonblocking(true)?;
    match socket.connect(&server(port).into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(mio::net::TcpStream::from_std(socket.into())),
    }
}

/// Connects, and returns a socket that does not block, with a small receive buffer where asked.
pub fn connected(port: u16, small_receive_buffer: bool) -> io::Result<TcpStream> {
    let socket = local_socket()?;
    if small_receive_buffer {
        socket.set_recv_buffer_size(SMALL_RECEIVE_BUFFER)?;
    }
    socket.connect(&server(port).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn local_socket() -> io::Result<Socket> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let host = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 2;
    let address = Ipv4Addr::new(127, 0, 0, host as u8);

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    Ok(socket)
}

/// Reads what is there, in pieces as large as the buffer, and hands each to `take`. Returns whether the stream is
/// still open.
pub fn drain<E: From<io::Error>>(
    socket: &mut impl Read,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<bool, E> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                take(&buffer[..count])?;
                // A short read has emptied the socket; epoll tells when more has come.
                if count < buffer.len() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
