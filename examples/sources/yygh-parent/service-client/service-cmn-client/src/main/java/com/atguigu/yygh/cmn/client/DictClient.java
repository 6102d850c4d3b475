package com.atguigu.yygh.cmn.client;

import com.atguigu.yygh.service.ServiceClients;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Import this to call {@code service-cmn} through its contract. */
@Configuration(proxyBeanMethods = false)
public class DictClient {

    @Bean
    DictApi dictApi(ServiceClients clients) {
        return clients.create("service-cmn", DictApi.class);
    }
}
