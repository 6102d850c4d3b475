package com.atguigu.yygh.gateway;

import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** The one door to all services. */
@SpringBootApplication
public class ServerGatewayApplication {

    public static void main(String[] args) {
        YyghService.run(ServerGatewayApplication.class, args);
    }
}
