//! A relay that refuses every message for good, as outlive's own never does.

use std::net::{TcpListener, TcpStream};
use std::thread;

use outlive_core::StoreId;
use outlive_core::wire::relay::{self, Binding, Class, FromRelay, Refusal, ToRelay};
use tokio_tungstenite::tungstenite::{Message, accept};

/// Starts one, which serves as long as the tests run. Returns its address.
pub(crate) fn refusing_relay() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    url
}

fn serve(stream: TcpStream) {
    let Ok(mut socket) = accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        let Message::Binary(bytes) = message else {
            continue;
        };
        let said = relay::decode::<ToRelay>(&bytes).unwrap();
        let mut answers = Vec::new();
        for answer in said.into_iter().filter_map(answer) {
            relay::encode(&answer, &mut answers);
        }
        if !answers.is_empty() && socket.send(Message::binary(answers)).is_err() {
            return;
        }
    }
}

fn answer(said: ToRelay) -> Option<FromRelay> {
    Some(match said {
        ToRelay::Hello { .. } => FromRelay::Challenge {
            nonce: [7; 32],
            store: StoreId([7; 16]),
            binding: Binding::None,
        },
        ToRelay::Proof { .. } => FromRelay::Welcome { max_ttl: 86_400 },
        ToRelay::Submit {
            envelope,
            class: Class::Keep,
            ..
        } => FromRelay::Refused {
            envelope,
            reason: Refusal::NotAllowed,
        },
        ToRelay::Submit { envelope, .. } => FromRelay::Accepted { envelope },
        _ => return None,
    })
}
