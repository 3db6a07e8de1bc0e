import java.nio.file.Path;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;

/**
 * One Elasticsearch node on loopback, from the jars of elasticsearch.xml:
 * java -p LIB --add-modules org.elasticsearch.server ElasticsearchNode.java FOLDER PORT [NAME=VALUE ...].
 *
 * The module that speaks HTTP is found in FOLDER/modules. The modules of the distribution that are not on Maven Central,
 * the answer to GET / among them, are not there.
 */
public final class ElasticsearchNode {
    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        Path folder = Path.of(arguments[0]);
        Settings.Builder settings = Settings.builder()
            .put("path.home", folder)
            .put("cluster.name", "hubbub-test")
            .put("node.name", "one")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", arguments[1])
            .put("transport.port", "0");
        for (int at = 2; at < arguments.length; at++) {
            settings.put(arguments[at].split("=", 2)[0], arguments[at].split("=", 2)[1]);
        }
        Node node = new Node(new Environment(settings.build(), folder.resolve("config")));
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
