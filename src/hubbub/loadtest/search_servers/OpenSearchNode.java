import java.util.List;
import java.util.Map;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/**
 * One OpenSearch node on loopback, from the jars of opensearch.xml:
 * java -cp 'LIB/*' OpenSearchNode.java FOLDER PORT [NAME=VALUE ...].
 *
 * The distribution's own start-up wants its folder layout, its modules and its security manager; a test needs none of
 * them, only the node itself and the module that speaks HTTP.
 */
public final class OpenSearchNode {
    private static final class WithHttp extends Node {
        WithHttp(Settings settings) {
            super(
                InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "hubbub"),
                List.of(Netty4Plugin.class),
                false
            );
        }
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder()
            .put("path.home", arguments[0])
            .put("cluster.name", "hubbub-test")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", arguments[1])
            .put("transport.port", "0")
            .put("transport.type", "netty4")
            .put("http.type", "netty4");
        for (int at = 2; at < arguments.length; at++) {
            settings.put(arguments[at].split("=", 2)[0], arguments[at].split("=", 2)[1]);
        }
        Node node = new WithHttp(settings.build());
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (java.io.IOException error) {
                error.printStackTrace();
            }
        }));
        node.start();
        Thread.currentThread().join();
    }
}
