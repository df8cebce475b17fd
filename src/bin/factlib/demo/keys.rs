//! Reads single key presses from a terminal.

use std::{
    io::{IsTerminal, Read, stdin, stdout},
    thread,
};

use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use tokio::sync::mpsc;

/// The action of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Stops the broker, or starts it again.
    ToggleBroker,
    /// Removes the time limit.
    Stay,
    /// Ends the demo.
    End,
}

/// A terminal without line buffering and echo; its mode is restored on drop.
pub struct Keys {
    pressed: mpsc::UnboundedReceiver<Key>,
    original: Termios,
}

impl Keys {
    /// Starts listening; `None` for a pipe, a file or a background job.
    pub fn listen() -> Option<Self> {
        let in_background = tcgetpgrp(stdin()).is_ok_and(|group| group != getpgrp());
        if !stdin().is_terminal() || !stdout().is_terminal() || in_background {
            return None;
        }
        let original = tcgetattr(stdin()).ok()?;
        let mut unbuffered = original.clone();
        // ISIG stays, so that Ctrl-C remains a signal.
        unbuffered.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        tcsetattr(stdin(), OptionalActions::Now, &unbuffered).ok()?;
        let (press, pressed) = mpsc::unbounded_channel();
        // The thread ends with the process: a blocking read can't be cancelled.
        thread::spawn(move || {
            let keys = stdin().lock().bytes().map_while(Result::ok).filter_map(key);
            for key in keys {
                if press.send(key).is_err() {
                    return;
                }
            }
        });
        Some(Keys { pressed, original })
    }

    /// Waits for the next key; for ever without a terminal.
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
        // Fails only if the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.original);
    }
}

fn key(byte: u8) -> Option<Key> {
    match byte {
        b'b' | b'B' => Some(Key::ToggleBroker),
        b' ' => Some(Key::Stay),
        b'q' | b'Q' => Some(Key::End),
        _ => None,
    }
}
