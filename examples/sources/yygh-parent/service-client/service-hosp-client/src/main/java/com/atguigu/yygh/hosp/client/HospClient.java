package com.atguigu.yygh.hosp.client;

import com.atguigu.yygh.service.ServiceClients;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Import this to call {@code service-hosp} through its contract. */
@Configuration(proxyBeanMethods = false)
public class HospClient {

    @Bean
    HospApi hospApi(ServiceClients clients) {
        return clients.create("service-hosp", HospApi.class);
    }
}
