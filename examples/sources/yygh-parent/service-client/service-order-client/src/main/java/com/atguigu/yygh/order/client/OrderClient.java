package com.atguigu.yygh.order.client;

import com.atguigu.yygh.service.ServiceClients;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Import this to call {@code service-order} through its contract. */
@Configuration(proxyBeanMethods = false)
public class OrderClient {

    @Bean
    OrderApi orderApi(ServiceClients clients) {
        return clients.create("service-order", OrderApi.class);
    }
}
