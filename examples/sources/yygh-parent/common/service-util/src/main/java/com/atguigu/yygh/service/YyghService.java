package com.atguigu.yygh.service;

import java.security.Security;
import org.springframework.boot.SpringApplication;

/** Starts a service with the network settings that a cluster needs. */
public final class YyghService {

    private YyghService() {
    }

    public static void run(Class<?> application, String... args) {
        // The JVM keeps addresses for 30 s and failed look-ups for 10 s: too long where Services come and go.
        Security.setProperty("networkaddress.cache.ttl", "2");
        Security.setProperty("networkaddress.cache.negative.ttl", "0");
        // Lets calls say "Connection: close", see ServiceClients.
        System.setProperty("jdk.httpclient.allowRestrictedHeaders", "connection");
        SpringApplication.run(application, args);
    }
}
