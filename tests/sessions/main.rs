//! The public API over real sockets and over a relay in memory whose faults can be ordered: peers that
//! come and go while a relay is replaced (`scenarios`), callbacks that outlive connections
//! (`callbacks`), and what users of other systems reported.
//!
//! | where it happened, and what | so here |
//! |---|---|
//! | stanza: a resume set the ack counter to 0 | `resume::a_resume_sends_and_delivers_nothing_twice` |
//! | ChatSecure: acked before stored; binding first threw the queue away | `custody::nothing_is_acknowledged_before_the_recipient_holds_it_durably`, `delivery::messages_sent_before_a_restart_leave_after_it_without_a_new_send` |
//! | ejabberd: deleted when written to a half-dead socket | `custody::a_message_written_to_a_half_dead_socket_stays_in_its_mailbox` |
//! | strophe: days-old messages sent again after a suspend | `resume::what_was_acknowledged_is_never_sent_again_after_a_suspend` |
//! | XMPPFramework: counters restored, the rest of the session not | `restarts::in_every_state_of_its_store_a_session_is_of_one_piece` |
//! | socket.io: a session without a message yet could not be recovered | `resume::a_session_in_which_nothing_was_sent_yet_resumes_like_any_other` |
//! | socket.io: recovered once, not twice, while the old socket lingered | `resume::the_hundredth_rebind_is_like_the_first_while_the_old_sockets_linger`; core `links` |
//! | socket.io: one direction was recovered | `resume::both_directions_resume_in_the_same_exchange` |
//! | socket.io: a restart lost all sessions, all clients came back at once | `restarts::when_a_relay_restarts_its_clients_lose_nothing_and_come_back_spread_over_time`, `delivery::a_relay_that_restarts_loses_nothing_it_accepted` |
//! | rumqtt: no word of a disconnect, no time to live | `resume::a_disconnect_shows_in_the_state_and_as_an_event`, `delivery::a_message_whose_time_is_over_ends_and_its_receipt_says_so` |
//! | rumqtt: subscriptions gone after a reconnect | `callbacks::registered_callbacks_equal_active_subscriptions_through_1000_connects`, `callbacks::a_volatile_channel_is_heard_only_by_who_listens_and_survives_reconnects` |
//! | paho: what was published while it reconnected was lost | `resume::what_is_sent_at_any_moment_of_a_rebind_arrives_in_order` |
//! | MQTT.js: the store was not sent after a restart | `delivery::messages_sent_before_a_restart_leave_after_it_without_a_new_send` |
//! | simplexmq: hung until unrelated traffic came | `restarts::after_a_crash_what_waits_comes_without_other_traffic`, `isolation::a_message_that_came_as_the_store_failed_comes_again_without_other_traffic` |
//! | simplexmq: over the quota, and nobody noticed | `queue::a_message_over_the_quota_says_so_in_its_receipt_and_goes_when_there_is_room` |
//! | emqx: one message redelivered for ever blocked all | `inbox::one_bad_message_does_not_block_its_channel` |
//! | nheko: the head timed out for good, the tail was sent | `queue::while_the_head_of_a_queue_is_refused_nothing_behind_it_overtakes_it` |
//! | element-x: bad reception ended messages, its return woke nothing | `queue::a_network_that_is_away_for_days_ends_no_message_and_its_return_dials_at_once`, `dialing::a_network_that_comes_up_while_a_dial_hangs_is_dialed_over_at_once` |
//! | Signal-Android: an old observer, ending late, disconnected the new socket | `links::an_old_connection_that_ends_late_does_not_sign_the_new_one_out`, `links::an_old_link_that_ends_late_does_not_touch_its_successor`, `links::when_a_relay_dies_the_same_session_goes_on_over_the_next` |
//! | zajel: one callback for all peers | `scenarios`, `callbacks` |
//! | NATS: what a dead consumer held waited for a timeout | `custody::what_was_in_flight_to_a_dead_link_goes_again_at_once_on_rebind` |
//! | iroh: a lost pong took a link down; mesh-llm: pruned while idle | core `links` |
//! | iroh: a relay died, and the session with it | `links::when_a_relay_dies_the_same_session_goes_on_over_the_next`, `links::a_relay_that_fell_silent_holds_up_nothing_while_another_is_there` |
//! | matrix-rust-sdk: skipped out of order, or blocked and silent | `queue::while_the_head_of_a_queue_is_refused_nothing_behind_it_overtakes_it`, `queue::a_message_that_waits_behind_a_refused_one_can_be_taken_back`, `receipts` |
//! | simplexmq: a duplicate was not acknowledged and came for ever | `custody::a_duplicate_is_acknowledged_and_comes_no_more` |
//! | simplexmq: one broken queue stopped all | `isolation::a_session_that_cannot_be_loaded_does_not_stop_the_others`, `isolation::garbage_in_a_mailbox_is_let_go_and_stops_nothing_behind_it` |
//! | posthog, aptabase: off the queue before the send; one bad item blocked all | `custody::a_message_stays_in_the_outbox_until_the_peer_has_it`, `queue::a_message_refused_for_good_ends_says_so_and_holds_up_nobody` |
//! | tungstenite, aquatic: 128 KiB for each connection | cli `connections` |
//! | sled, bevy_pkv: files of 60 times the data | storage `sled::disk_use_follows_the_live_data` (200 times the live data; its example `disk_use` pushes 1,000 times) |
//! | Expensify, Twilio, chat-sdk: sent offline, gone after a restart | `restarts::a_send_is_ok_only_when_it_is_durable_and_then_goes_by_itself` |
//! | very many sessions: each reconnect announced them all | `many::of_100_000_sessions_only_those_with_work_wake_up`, `many::each_reconnect_costs_what_the_sessions_with_work_cost` |
//! | restored backups: new messages dropped as duplicates | `restarts::new_messages_of_a_restored_sender_are_not_taken_for_old_ones`, `restarts::a_restored_receiver_gets_what_is_new_and_hears_of_what_is_gone` |

#[path = "../direct/tap.rs"]
mod tap;

mod alike;
mod answers;
mod asked_again;
mod blocked;
mod bounds;
mod callbacks;
mod channels;
mod clocks;
mod closing;
mod custody;
mod damaged;
mod delivery;
mod dialing;
mod elsewhere;
mod far;
mod handlers;
mod hearing_all;
mod hostile_relay;
mod in_hand;
mod inbox;
mod isolation;
mod leaks;
mod links;
mod many;
mod misuse;
mod moved;
mod once;
mod padding;
mod paper;
mod played;
mod proxy;
mod queue;
mod queued;
mod receipts;
mod requests;
mod restarts;
mod resume;
mod runtimes;
mod scenarios;
mod scene;
mod secrecy;
mod shutdown;
mod strangers;
mod subscriptions;
mod trust;
mod unidentified;
mod watched;
mod world;
