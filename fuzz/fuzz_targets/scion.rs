//! Parses any datagram as a SCION packet, and builds a reply to an accepted one along the reversed
//! path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scion_tracker_core::codec::scion::{
    Answer, Message, Path, Quoted, Scmp, Template, parse, write_echo_reply,
};

fuzz_target!(|datagram: &[u8]| {
    let _ = Quoted::parse(datagram);
    if let Ok(path) = Path::parse(datagram) {
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        path.reverse_into(&mut once);
        Path::parse(&once).expect("a path").reverse_into(&mut twice);
        assert_eq!(twice, datagram);
    }
    let Ok(packet) = parse(datagram) else { return };
    packet.checksum_is_right();
    let (_, _) = (packet.path.expiry(), packet.path.links());
    match packet.message {
        Message::Udp(udp) => {
            let Ok(template) = Template::answering(&packet, &udp) else {
                return;
            };
            let mut answer = Vec::new();
            template
                .write(udp.payload, &mut answer)
                .expect("as long as the request");
            let mut buffer = vec![0; answer.len()];
            let mut in_place = Answer::new(&packet, &udp, &mut buffer).expect("room");
            in_place.room().copy_from_slice(udp.payload);
            assert_eq!(in_place.seal(udp.payload.len()), Ok(answer.len()));
            assert_eq!(buffer, answer);
            let answer = parse(&answer).expect("a packet");
            assert!(answer.checksum_is_right());
            assert_eq!(
                (answer.source, answer.destination),
                (packet.destination, packet.source)
            );
            assert_eq!(answer.path.links(), packet.path.links());
        }
        Message::Scmp(Scmp::EchoRequest(echo)) => {
            let mut reply = Vec::new();
            write_echo_reply(&packet, &echo, &mut reply).expect("as long as the request");
            assert!(parse(&reply).expect("a packet").checksum_is_right());
        }
        Message::Scmp(scmp) => {
            let _ = scmp.quote().map(Quoted::parse);
        }
    }
});
