//! The keys that a visitor presses, one by one: only where there is a terminal.

use std::{
    io::{IsTerminal, Read, stdin, stdout},
    thread,
};

use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use tokio::sync::mpsc;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Stop the broker, or start it again.
    Broker,
    /// No end but by a key.
    Stay,
    End,
}

/// The terminal, without lines and echo; it is as before once this is dropped.
pub struct Keys {
    pressed: mpsc::UnboundedReceiver<Key>,
    before: Termios,
}

impl Keys {
    /// None where nobody can press a key: a pipe, a file, or a job in the background.
    pub fn listen() -> Option<Self> {
        let in_background = tcgetpgrp(stdin()).is_ok_and(|group| group != getpgrp());
        if !stdin().is_terminal() || !stdout().is_terminal() || in_background {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut single = before.clone();
        // Signals stay: Ctrl-C is one.
        single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        tcsetattr(stdin(), OptionalActions::Now, &single).ok()?;
        let (press, pressed) = mpsc::unbounded_channel();
        // It ends with the process: a read of a terminal can't be called back.
        thread::spawn(move || {
            let keys = stdin().lock().bytes().map_while(Result::ok).filter_map(key);
            for key in keys {
                if press.send(key).is_err() {
                    return;
                }
            }
        });
        Some(Keys { pressed, before })
    }

    /// The next one; never where there are none.
    pub async fn next(keys: &mut Option<Self>) -> Key {
        let key = match keys {
            Some(keys) => keys.pressed.recv().await,
            None => None,
        };
        match key {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

fn key(byte: u8) -> Option<Key> {
    match byte {
        b'b' | b'B' => Some(Key::Broker),
        b' ' => Some(Key::Stay),
        b'q' | b'Q' => Some(Key::End),
        _ => None,
    }
}
