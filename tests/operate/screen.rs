//! A terminal with a program in it, as a user sees it and types into it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
};

use nix::pty::{OpenptyResult, Winsize, openpty};
use rustix::termios::tcsetwinsize;

/// What a program shows on a terminal, as it comes.
pub struct Screen {
    terminal: File,
    pub text: String,
}

impl Screen {
    /// Starts the program in a terminal of so many columns.
    pub fn start(mut command: Command, columns: u16) -> (Self, Child) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let side = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
        command.stdin(side(&slave)).stdout(side(&slave)).stderr(side(&slave));
        let child = command.spawn().unwrap();
        // The command keeps its ends open, and with them the terminal.
        drop((command, slave));
        (Screen { terminal: master.into(), text: String::new() }, child)
    }

    /// Reads more; false at the end.
    pub fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Of a terminal that nobody has open any more, Linux answers with an error.
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.text += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Reads on until this is shown, from here on.
    pub fn until(&mut self, expected: &str) {
        let begin = self.text.len();
        self.until_from(begin, expected);
    }

    /// Reads on until this is shown, from that byte on.
    pub fn until_from(&mut self, begin: usize, expected: &str) {
        while !self.text[begin..].contains(expected) {
            assert!(self.more(), "no {expected:?} in\n{}", &self.text[begin..]);
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Changes the width of the terminal, as when a window is resized.
    pub fn resize(&self, columns: u16) {
        let size =
            rustix::termios::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.terminal.as_fd(), size).unwrap();
    }
}
