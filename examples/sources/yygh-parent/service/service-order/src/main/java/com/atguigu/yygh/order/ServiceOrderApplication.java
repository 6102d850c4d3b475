package com.atguigu.yygh.order;

import com.atguigu.yygh.hosp.client.HospClient;
import com.atguigu.yygh.service.YyghService;
import com.atguigu.yygh.user.client.UserClient;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Import;

/** Orders. */
@SpringBootApplication
@Import({HospClient.class, UserClient.class})
public class ServiceOrderApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceOrderApplication.class, args);
    }
}
