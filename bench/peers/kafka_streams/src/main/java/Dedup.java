import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * De-duplication in Kafka Streams: the first event of an id passes, a persistent store (RocksDB) with its changelog remembers the id.
 *
 * <p>It runs with at_least_once and writes acknowledged by all replicas, which is what capistream's dedup promises: a crash may repeat
 * an output, never lose one. exactly_once_v2 would make it pay for a transaction that capistream does without. It commits as often as
 * capistream, each second.
 *
 * <p>Environment: BROKER, SOURCE, OUTPUT, FOLDER
 */
public final class Dedup implements FixedKeyProcessor<byte[], byte[], byte[]> {
    private static final String SEEN = "seen";
    private static final byte[] YES = {'1'};

    private final ObjectMapper json = new ObjectMapper();
    private FixedKeyProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> seen;

    @Override
    public void init(FixedKeyProcessorContext<byte[], byte[]> given) {
        context = given;
        seen = given.getStateStore(SEEN);
    }

    @Override
    public void process(FixedKeyRecord<byte[], byte[]> record) {
        JsonNode event;
        try {
            event = json.readTree(record.value());
        } catch (IOException exception) {
            throw new UncheckedIOException(exception);
        }
        if (seen.putIfAbsent(event.get("event_id").textValue(), YES) == null) {
            context.forward(record);
        }
    }

    public static void main(String[] arguments) {
        Map<String, String> env = System.getenv();
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, "streams-" + env.get("SOURCE"));
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env.get("BROKER"));
        config.put(StreamsConfig.STATE_DIR_CONFIG, env.get("FOLDER"));
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.AT_LEAST_ONCE);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1); // of the changelog; there is one broker
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        config.put(StreamsConfig.producerPrefix("acks"), "all");
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");

        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(SEEN), Serdes.String(), Serdes.ByteArray()));
        builder.stream(env.get("SOURCE"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .processValues(Dedup::new, SEEN)
                .to(env.get("OUTPUT"), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));

        KafkaStreams streams = new KafkaStreams(builder.build(), config);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
